// Package picturetest makes image files for tests: with EXIF data, in WebP, and broken ones.
package picturetest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
)

// Quadrants returns an image whose quadrants have the colours, in the order top left, top right,
// bottom left, bottom right.
func Quadrants(width, height int, colours [4]color.Color) *image.NRGBA {
	made := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			made.Set(x, y, colours[2*(2*y/height)+2*x/width])
		}
	}
	return made
}

// Plain returns an image of one colour.
func Plain(width, height int, c color.Color) *image.NRGBA {
	return Quadrants(width, height, [4]color.Color{c, c, c, c})
}

// JPEG encodes an image.
func JPEG(m image.Image) []byte {
	var b bytes.Buffer
	must(jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}))
	return b.Bytes()
}

// PNG encodes an image.
func PNG(m image.Image) []byte {
	var b bytes.Buffer
	must(png.Encode(&b, m))
	return b.Bytes()
}

// GIF encodes images as frames.
func GIF(frames ...image.Image) []byte {
	animation := &gif.GIF{}
	for _, frame := range frames {
		paletted := image.NewPaletted(frame.Bounds(), color.Palette{
			color.Transparent, color.Black, color.White, color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255},
		})
		for y := range frame.Bounds().Dy() {
			for x := range frame.Bounds().Dx() {
				paletted.Set(x, y, frame.At(x, y))
			}
		}
		animation.Image, animation.Delay = append(animation.Image, paletted), append(animation.Delay, 10)
	}
	var b bytes.Buffer
	must(gif.EncodeAll(&b, animation))
	return b.Bytes()
}

// WebP encodes an image without loss. Its pixels are white where light says so, and black
// elsewhere (RFC 9649, 3).
func WebP(width, height int, light func(x, y int) bool) []byte {
	return riff(vp8l(width, height, light))
}

// WebPWithEXIF is WebP with EXIF data.
func WebPWithEXIF(width, height int, light func(x, y int) bool, exif []byte) []byte {
	const exifFlag = 1 << 3
	return riff(vp8x(exifFlag, width, height), vp8l(width, height, light), chunk("EXIF", exif))
}

// AnimatedWebP returns the beginning of an animation.
func AnimatedWebP() []byte {
	const animationFlag = 1 << 1
	return riff(vp8x(animationFlag, 8, 8), chunk("ANIM", make([]byte, 6)), chunk("ANMF", make([]byte, 16)))
}

func vp8x(flags byte, width, height int) []byte {
	header := []byte{flags, 0, 0, 0}
	for _, side := range []int{width - 1, height - 1} {
		header = append(header, byte(side), byte(side>>8), byte(side>>16))
	}
	return chunk("VP8X", header)
}

func vp8l(width, height int, light func(x, y int) bool) []byte {
	b := &bits{data: []byte{0x2f}}
	b.write(uint(width-1), 14)
	b.write(uint(height-1), 14)
	b.write(0, 1+3) // no alpha, version 0
	b.write(0, 3)   // no transform, no colour cache, no further prefix codes
	b.write(0b111, 3)
	b.write(0, 8)
	b.write(255, 8) // green: 0 or 255, in one bit
	for range 2 {   // red and blue: always 0
		b.write(0b101, 3)
		b.write(0, 8)
	}
	b.write(0b101, 3)
	b.write(255, 8) // alpha
	b.write(0b101, 3)
	b.write(0, 8) // distance
	for y := range height {
		for x := range width {
			if light(x, y) {
				b.write(1, 1)
			} else {
				b.write(0, 1)
			}
		}
	}
	return chunk("VP8L", b.data)
}

// bits writes from the lowest bit on.
type bits struct {
	data []byte
	free int // bits of the last byte
}

func (b *bits) write(value uint, n int) {
	for i := range n {
		if b.free == 0 {
			b.data, b.free = append(b.data, 0), 8
		}
		b.data[len(b.data)-1] |= byte(value>>i&1) << (8 - b.free)
		b.free--
	}
}

func riff(chunks ...[]byte) []byte {
	body := append([]byte("WEBP"), bytes.Join(chunks, nil)...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

func chunk(name string, data []byte) []byte {
	made := append(binary.LittleEndian.AppendUint32([]byte(name), uint32(len(data))), data...)
	if len(data)%2 == 1 {
		made = append(made, 0)
	}
	return made
}

// Place is in the EXIF data that EXIF makes: where a photograph was taken.
const Place = "51 deg 28' 40.12\" N, 0 deg 0' 5.31\" W"

// EXIF returns EXIF data with an orientation and a GPS position, in an order of bytes.
func EXIF(order binary.AppendByteOrder, orientation uint16) []byte {
	data := []byte("II*\x00")
	if order == binary.AppendByteOrder(binary.BigEndian) {
		data = []byte("MM\x00*")
	}
	data = order.AppendUint32(data, 8)
	entry := func(tag, kind uint16, count uint32, value func([]byte) []byte) {
		data = order.AppendUint16(order.AppendUint16(data, tag), kind)
		data = value(order.AppendUint32(data, count))
	}
	number := func(n uint32) func([]byte) []byte {
		return func(b []byte) []byte { return order.AppendUint32(b, n) }
	}
	const (
		short, long, ascii = 3, 4, 2
		gps                = 8 + 2 + 2*12 + 4
		text               = gps + 2 + 12 + 4
	)
	data = order.AppendUint16(data, 2)
	entry(0x0112, short, 1, func(b []byte) []byte { return append(order.AppendUint16(b, orientation), 0, 0) })
	entry(0x8825, long, 1, number(gps))
	data = order.AppendUint32(data, 0)
	data = order.AppendUint16(data, 1)
	entry(0x001b, ascii, uint32(len(Place)+1), number(text))
	data = order.AppendUint32(data, 0)
	return append(append(data, Place...), 0)
}

// JPEGWithEXIF adds EXIF data, and after it a comment and an ICC profile, to a JPEG.
func JPEGWithEXIF(file, exif []byte) []byte {
	segment := func(marker byte, data string) []byte {
		return append([]byte{0xff, marker, byte((len(data) + 2) >> 8), byte(len(data) + 2)}, data...)
	}
	return bytes.Join([][]byte{
		file[:2], segment(0xe1, "Exif\x00\x00"+string(exif)), segment(0xfe, Place), segment(0xe2, "ICC_PROFILE\x00\x01\x01"+Place), file[2:],
	}, nil)
}

// PNGWithChunk adds a chunk after the header of a PNG.
func PNGWithChunk(file []byte, name string, data []byte) []byte {
	const header = 8 + 8 + 13 + 4
	body := append([]byte(name), data...)
	made := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	made = binary.BigEndian.AppendUint32(append(made, body...), crc32.ChecksumIEEE(body))
	return bytes.Join([][]byte{file[:header], made, file[header:]}, nil)
}

// PNGOf changes the width and the height that a PNG declares.
func PNGOf(file []byte, width, height uint32) []byte {
	made := bytes.Clone(file)
	binary.BigEndian.PutUint32(made[16:], width)
	binary.BigEndian.PutUint32(made[20:], height)
	binary.BigEndian.PutUint32(made[29:], crc32.ChecksumIEEE(made[12:29]))
	return made
}

// GIFOf changes the logical screen that a GIF declares.
func GIFOf(file []byte, width, height uint16) []byte {
	made := bytes.Clone(file)
	binary.LittleEndian.PutUint16(made[6:], width)
	binary.LittleEndian.PutUint16(made[8:], height)
	return made
}

// JPEGOf changes the width and the height that a JPEG declares.
func JPEGOf(file []byte, width, height uint16) []byte {
	made := bytes.Clone(file)
	frame := bytes.Index(made, []byte{0xff, 0xc0})
	binary.BigEndian.PutUint16(made[frame+5:], height)
	binary.BigEndian.PutUint16(made[frame+7:], width)
	return made
}

func must(err error) {
	if err != nil {
		panic(err) // The encoders write to memory.
	}
}

// GreyJPEG returns a progressive JPEG in grey (128).
func GreyJPEG(width, height int) []byte { return zeroJPEG(0xc2, width, height, 1) }

// CMYKJPEG returns a JPEG in CMYK, in a dark grey (64).
func CMYKJPEG(width, height int) []byte { return zeroJPEG(0xc0, width, height, 4) }

// zeroJPEG returns a JPEG whose coefficients are all 0, with the marker of a kind of frame
// (ITU T.81).
func zeroJPEG(frame byte, width, height, components int) []byte {
	file := []byte("\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00") // as is, without a transform
	segment := func(marker byte, data []byte) {
		file = append(append(file, 0xff, marker, byte((len(data)+2)>>8), byte(len(data)+2)), data...)
	}
	segment(0xdb, append([]byte{0}, bytes.Repeat([]byte{1}, 64)...))
	header := []byte{8, byte(height >> 8), byte(height), byte(width >> 8), byte(width), byte(components)}
	scan := []byte{byte(components)}
	for i := range components {
		header = append(header, byte(i+1), 0x11, 0)
		scan = append(scan, byte(i+1), 0)
	}
	segment(frame, header)
	for _, class := range []byte{0x00, 0x10} { // One code, a zero, for 0 and for the end of a block.
		segment(0xc4, append(append([]byte{class, 1}, make([]byte, 15)...), 0))
	}
	last, perBlock := byte(63), 2
	if frame == 0xc2 {
		last, perBlock = 0, 1 // only the first coefficient
	}
	segment(0xda, append(scan, 0, last, 0))
	blocks := ((width + 7) / 8) * ((height + 7) / 8) * components
	return append(append(file, make([]byte, (blocks*perBlock+7)/8)...), 0xff, 0xd9)
}
