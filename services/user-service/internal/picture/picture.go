// Package picture makes square pictures of an image that a stranger has sent. Nothing of what
// was sent remains in them but pixels. It knows nothing of profiles, HTTP or storage.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"

	"github.com/headgate/headgate/pkg/problem"
)

// The limits of an image that is sent.
const (
	MaxBytes = 5 << 20
	MaxSide  = 4096 // pixels, so an image has at most 16.8 million
	// maxScans limits the scans of a JPEG. Each can be a few bytes long and costs a pass over all
	// pixels; encoders make about ten.
	maxScans = 64
)

// Sizes are the sides of the squares in pixels, the largest first.
var Sizes = []int{512, 256, 64}

// Errors that clients can cause.
var (
	ErrType = problem.New(problem.UnsupportedMedia, "unsupported_image_type",
		"Send a PNG, JPEG, WebP or GIF image, with its own media type: image/png, image/jpeg, image/webp or image/gif.")
	ErrAnimated = problem.New(problem.UnsupportedMedia, "animated_image_not_supported",
		"Animated WebP images are not supported. Send a still image.")
	ErrDimensions = problem.New(problem.Invalid, "image_dimensions_too_large",
		fmt.Sprintf("The image is too large. Make it at most %d pixels wide and high, then send it again.", MaxSide))
	ErrInvalid = problem.New(problem.Invalid, "invalid_image",
		"The image is damaged or incomplete, or is not in a form that can be read. Save it again, then retry.")
)

// Format is a file format of images.
type Format string

// The formats that can be read.
const (
	JPEG Format = "image/jpeg"
	PNG  Format = "image/png"
	GIF  Format = "image/gif"
	WebP Format = "image/webp"
)

// Source is an image that was sent and is not decoded yet.
type Source struct {
	data          []byte
	format        Format
	width, height int
	need          int64
}

// Open reads the header of an image of the declared media type, or of any that its first bytes
// say if declared is empty. It allocates nothing for pixels. It fails with ErrType, ErrAnimated,
// ErrDimensions or ErrInvalid.
func Open(data []byte, declared string) (*Source, error) {
	format := sniff(data)
	switch {
	case len(data) == 0:
		return nil, ErrInvalid
	case format == "", declared != "" && Format(declared) != format:
		return nil, ErrType
	case format == WebP && animated(data):
		return nil, ErrAnimated
	case format == JPEG && bytes.Count(data, []byte{0xff, 0xda}) > maxScans:
		return nil, fmt.Errorf("more than %d scans: %w", maxScans, ErrInvalid)
	}
	config, err := decodeConfig(format, data)
	if err != nil {
		return nil, fmt.Errorf("read the header of the image: %w: %w", err, ErrInvalid)
	}
	if config.Width < 1 || config.Height < 1 {
		return nil, ErrInvalid
	}
	if config.Width > MaxSide || config.Height > MaxSide {
		return nil, ErrDimensions
	}
	s := &Source{data: data, format: format, width: config.Width, height: config.Height}
	s.need = memory(s, config)
	return s, nil
}

// Memory returns how many bytes Squares may need at once, besides the data itself.
func (s *Source) Memory() int64 { return s.need }

// sniff returns the format that the first bytes of data announce, or "".
func sniff(data []byte) Format {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return JPEG
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return PNG
	case bytes.HasPrefix(data, []byte("GIF87a")), bytes.HasPrefix(data, []byte("GIF89a")):
		return GIF
	case len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return WebP
	}
	return ""
}

// animated reports whether a WebP file has the animation flag, which is in its first chunk.
func animated(data []byte) bool {
	const animationFlag = 1 << 1
	return len(data) > 20 && string(data[12:16]) == "VP8X" && data[20]&animationFlag != 0
}

func decodeConfig(format Format, data []byte) (image.Config, error) {
	r := bytes.NewReader(data)
	switch format {
	case JPEG:
		return jpeg.DecodeConfig(r)
	case PNG:
		return png.DecodeConfig(r)
	case GIF:
		return gif.DecodeConfig(r)
	case WebP:
		return webp.DecodeConfig(r)
	}
	return image.Config{}, errors.ErrUnsupported
}

// decode returns the pixels; of a GIF, those of the first frame.
func decode(format Format, data []byte) (image.Image, error) {
	r := bytes.NewReader(data)
	switch format {
	case JPEG:
		return jpeg.Decode(r)
	case PNG:
		return png.Decode(r)
	case GIF:
		return gif.Decode(r)
	case WebP:
		return webp.Decode(r)
	}
	return nil, errors.ErrUnsupported
}

// Square is a picture that is ready to be served.
type Square struct {
	Size int // one of Sizes
	Data []byte
}

// Squares are the pictures of one image, in the order of Sizes.
type Squares struct {
	Extension string // jpg or png, the same for all
	Pictures  []Square
}

// Squares decodes the image, turns it upright, and returns the square in its centre in each of
// Sizes: as JPEG, or as PNG if a pixel is transparent. An image is never enlarged: the picture of
// a size that the image does not have is as large as the square in it. Equal images make equal
// bytes. It fails with ErrInvalid.
func (s *Source) Squares() (Squares, error) {
	pixels, err := decode(s.format, s.data)
	if err != nil {
		return Squares{}, fmt.Errorf("decode the image: %w: %w", err, ErrInvalid)
	}
	if pixels.Bounds().Empty() {
		return Squares{}, ErrInvalid
	}
	largest := upright(scaled(pixels, centre(pixels.Bounds()), Sizes[0]), orientation(s.format, s.data))
	made := Squares{Extension: "png"}
	if largest.Opaque() {
		made.Extension = "jpg"
	}
	for _, size := range Sizes {
		var encoded bytes.Buffer
		if err := encode(&encoded, made.Extension, scaled(largest, largest.Bounds(), size)); err != nil {
			return Squares{}, fmt.Errorf("encode the picture of %d pixels: %w", size, err)
		}
		made.Pictures = append(made.Pictures, Square{Size: size, Data: encoded.Bytes()})
	}
	return made, nil
}

const quality = 90

func encode(to *bytes.Buffer, extension string, pixels image.Image) error {
	if extension == "jpg" {
		return jpeg.Encode(to, pixels, &jpeg.Options{Quality: quality})
	}
	return (&png.Encoder{CompressionLevel: png.DefaultCompression}).Encode(to, pixels)
}

// centre returns the largest square in the middle of r.
func centre(r image.Rectangle) image.Rectangle {
	side := min(r.Dx(), r.Dy())
	corner := r.Min.Add(image.Pt((r.Dx()-side)/2, (r.Dy()-side)/2))
	return image.Rectangle{corner, corner.Add(image.Pt(side, side))}
}

// scaled returns the square of pixels with a side of at most size.
func scaled(pixels image.Image, square image.Rectangle, size int) *image.RGBA {
	side := min(size, square.Dx())
	if same, ok := pixels.(*image.RGBA); ok && side == square.Dx() && square == same.Rect {
		return same
	}
	made := image.NewRGBA(image.Rect(0, 0, side, side))
	switch pixels.(type) {
	case *image.YCbCr, *image.RGBA, *image.NRGBA, *image.Gray:
	default: // The scaler would read the others pixel by pixel, through an interface.
		plain := image.NewRGBA(square)
		draw.Draw(plain, square, pixels, square.Min, draw.Src)
		pixels = plain
	}
	draw.CatmullRom.Scale(made, made.Rect, pixels, square, draw.Src, nil)
	return made
}

// memory returns how much Squares may need, from what the decoders of the standard library and of
// golang.org/x/image allocate for each pixel.
func memory(s *Source, config image.Config) int64 {
	const scaler = 32 // bytes for each pixel of a column of 512 pixels that is not scaled yet
	perPixel := 0
	switch s.format {
	case JPEG:
		perPixel = 4
		if config.ColorModel == cmyk {
			perPixel = 12 // planes, their conversion, and that to RGBA
		}
		if bytes.Contains(s.data, []byte{0xff, 0xc2}) {
			perPixel += 16 // A progressive image keeps a coefficient of 4 bytes for each sample.
		}
	case PNG:
		perPixel = 6 // An interlaced image has its largest pass besides.
		if config.ColorModel == rgba64 || config.ColorModel == nrgba64 || config.ColorModel == gray16 {
			perPixel = 16
		}
	case GIF:
		perPixel = 5
	case WebP:
		perPixel = 12
	}
	return int64(s.width)*int64(s.height)*int64(perPixel) + int64(Sizes[0])*int64(s.height)*scaler
}
