package picture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/headgate/headgate/services/user-service/internal/picture"
	"github.com/headgate/headgate/services/user-service/internal/picture/picturetest"
)

var (
	red, green, blue, white = color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 255, 0, 255}, color.NRGBA{0, 0, 255, 255}, color.NRGBA{255, 255, 255, 255}
	four                    = [4]color.Color{red, green, blue, white}
)

func squares(t testing.TB, data []byte, declared string) picture.Squares {
	t.Helper()
	source, err := picture.Open(data, declared)
	if err != nil {
		t.Fatal(err)
	}
	made, err := source.Squares()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// decoded returns a picture, which must be a JPEG or PNG as its extension says and have the side.
func decoded(t testing.TB, made picture.Squares, i, side int) image.Image {
	t.Helper()
	r := bytes.NewReader(made.Pictures[i].Data)
	decode := jpeg.Decode
	if made.Extension == "png" {
		decode = png.Decode
	}
	m, err := decode(r)
	if err != nil || r.Len() > 0 || m.Bounds() != image.Rect(0, 0, side, side) {
		t.Fatalf("picture %d is a %s of %v, with %d bytes after it: %v", i, made.Extension, m.Bounds(), r.Len(), err)
	}
	return m
}

func wantColour(t testing.TB, where string, got, want color.Color) {
	t.Helper()
	const tolerance = 0x1000
	var a, b [4]uint32
	a[0], a[1], a[2], a[3] = got.RGBA()
	b[0], b[1], b[2], b[3] = want.RGBA()
	for i := range a {
		if a[i] > b[i]+tolerance || b[i] > a[i]+tolerance {
			t.Errorf("%s: colour %v, want %v", where, got, want)
			return
		}
	}
}

// wantQuadrants checks the colours in the middle of the quadrants.
func wantQuadrants(t testing.TB, where string, m image.Image, want [4]color.Color) {
	t.Helper()
	side := m.Bounds().Dx()
	for i, c := range want {
		wantColour(t, fmt.Sprintf("%s, quadrant %d", where, i), m.At(side/4+i%2*side/2, side/4+i/2*side/2), c)
	}
}

// TestSquares: the centre in three sizes, never enlarged; PNG only for what is transparent.
func TestSquares(t *testing.T) {
	t.Parallel()
	transparent := picturetest.Quadrants(600, 600, [4]color.Color{red, green, blue, color.NRGBA{255, 0, 0, 100}})
	deep := image.NewNRGBA64(image.Rect(0, 0, 600, 700))
	grey := image.NewGray16(image.Rect(0, 0, 700, 600))
	for i := range deep.Pix {
		deep.Pix[i] = 0xff
	}
	for name, tc := range map[string]struct {
		data      []byte
		declared  string
		extension string
		sides     [3]int
		want      [4]color.Color
	}{
		"JPEG":             {picturetest.JPEG(picturetest.Quadrants(600, 600, four)), "image/jpeg", "jpg", [3]int{512, 256, 64}, four},
		"PNG":              {picturetest.PNG(picturetest.Quadrants(1024, 1024, four)), "image/png", "jpg", [3]int{512, 256, 64}, four},
		"GIF":              {picturetest.GIF(picturetest.Quadrants(300, 300, four), picturetest.Plain(300, 300, color.Black)), "image/gif", "jpg", [3]int{300, 256, 64}, four},
		"of unknown type":  {picturetest.PNG(picturetest.Quadrants(600, 600, four)), "", "jpg", [3]int{512, 256, 64}, four},
		"small":            {picturetest.PNG(picturetest.Quadrants(100, 100, four)), "image/png", "jpg", [3]int{100, 100, 64}, four},
		"one pixel":        {picturetest.PNG(picturetest.Plain(1, 1, red)), "image/png", "jpg", [3]int{1, 1, 1}, [4]color.Color{red, red, red, red}},
		"wide":             {picturetest.PNG(picturetest.Plain(4096, 4, red)), "image/png", "jpg", [3]int{4, 4, 4}, [4]color.Color{red, red, red, red}},
		"transparent":      {picturetest.PNG(transparent), "image/png", "png", [3]int{512, 256, 64}, [4]color.Color{red, green, blue, color.NRGBA{255, 0, 0, 100}}},
		"16 bits":          {picturetest.PNG(deep), "image/png", "jpg", [3]int{512, 256, 64}, [4]color.Color{white, white, white, white}},
		"16 bits, grey":    {picturetest.PNG(grey), "image/png", "jpg", [3]int{512, 256, 64}, [4]color.Color{color.Black, color.Black, color.Black, color.Black}},
		"the largest":      {picturetest.GreyJPEG(4096, 4096), "image/jpeg", "jpg", [3]int{512, 256, 64}, [4]color.Color{grey128, grey128, grey128, grey128}},
		"JPEG in CMYK":     {picturetest.CMYKJPEG(64, 64), "image/jpeg", "jpg", [3]int{64, 64, 64}, [4]color.Color{grey64, grey64, grey64, grey64}},
		"WebP":             {picturetest.WebP(300, 300, func(_, y int) bool { return y < 150 }), "image/webp", "jpg", [3]int{300, 256, 64}, [4]color.Color{green, green, color.Black, color.Black}},
		"transparent GIF":  {picturetest.GIF(picturetest.Quadrants(80, 80, [4]color.Color{red, color.Transparent, red, red})), "image/gif", "png", [3]int{80, 80, 64}, [4]color.Color{red, color.Transparent, red, red}},
		"progressive JPEG": {picturetest.GreyJPEG(16, 16), "image/jpeg", "jpg", [3]int{16, 16, 16}, [4]color.Color{grey128, grey128, grey128, grey128}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := squares(t, tc.data, tc.declared)
			if made.Extension != tc.extension || len(made.Pictures) != 3 {
				t.Fatalf("%d pictures, %s", len(made.Pictures), made.Extension)
			}
			for i, side := range tc.sides {
				if made.Pictures[i].Size != picture.Sizes[i] {
					t.Errorf("picture %d has the size %d", i, made.Pictures[i].Size)
				}
				m := decoded(t, made, i, side)
				if side > 1 {
					wantQuadrants(t, strconv.Itoa(side), m, tc.want)
				}
			}
			if name == "the largest" { // It takes long enough.
				return
			}
			if again := squares(t, tc.data, tc.declared); !bytes.Equal(again.Pictures[0].Data, made.Pictures[0].Data) {
				t.Error("equal images make different bytes")
			}
		})
	}
}

var grey64, grey128 = color.Gray{64}, color.Gray{128}

// TestCentre: the square is the middle of a wide and of a high image.
func TestCentre(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]image.Point{"wide": {900, 300}, "high": {300, 900}} {
		m := picturetest.Plain(size.X, size.Y, red)
		for y := range 300 {
			for x := range 300 {
				m.Set(x+(size.X-300)/2, y+(size.Y-300)/2, green)
			}
		}
		made := squares(t, picturetest.PNG(m), "image/png")
		square := decoded(t, made, 0, 300)
		for _, at := range []image.Point{{1, 1}, {298, 1}, {1, 298}, {298, 298}, {150, 150}} {
			wantColour(t, fmt.Sprintf("%s at %v", name, at), square.At(at.X, at.Y), green)
		}
	}
}

// visual returns where the pixel in a row and column of the file, each 0 or 1, is to be seen. For
// each orientation, the standard says which side the first row and the first column are.
func visual(orientation, row, column int) (atRow, atColumn int) {
	sides := map[int][2]string{1: {"top", "left"}, 2: {"top", "right"}, 3: {"bottom", "right"}, 4: {"bottom", "left"}, 5: {"left", "top"}, 6: {"right", "top"}, 7: {"right", "bottom"}, 8: {"left", "bottom"}}
	for i, n := range []int{row, column} {
		switch sides[orientation][i] {
		case "top":
			atRow = n
		case "bottom":
			atRow = 1 - n
		case "left":
			atColumn = n
		case "right":
			atColumn = 1 - n
		}
	}
	return atRow, atColumn
}

// TestSEC149Orientation: every orientation is applied, in each format that can declare one, and
// what declares it is gone.
func TestSEC149Orientation(t *testing.T) {
	t.Parallel()
	for orientation := 1; orientation <= 8; orientation++ {
		var stored [4]color.Color
		for i := range stored {
			row, column := visual(orientation, i/2, i%2)
			stored[i] = four[2*row+column]
		}
		little, big := picturetest.EXIF(binary.LittleEndian, uint16(orientation)), picturetest.EXIF(binary.BigEndian, uint16(orientation))
		m := picturetest.Quadrants(520, 390, stored)
		topLeft := func(x, y int) bool { row, column := visual(orientation, 2*y/300, 2*x/300); return row+column == 0 }
		for name, tc := range map[string]struct {
			data     []byte
			declared string
			want     [4]color.Color
		}{
			"JPEG":             {picturetest.JPEGWithEXIF(picturetest.JPEG(m), little), "image/jpeg", four},
			"JPEG, big-endian": {picturetest.JPEGWithEXIF(picturetest.JPEG(m), big), "image/jpeg", four},
			"PNG":              {picturetest.PNGWithChunk(picturetest.PNG(m), "eXIf", big), "image/png", four},
			"WebP":             {picturetest.WebPWithEXIF(300, 300, topLeft, little), "image/webp", [4]color.Color{green, color.Black, color.Black, color.Black}},
		} {
			made := squares(t, tc.data, tc.declared)
			where := fmt.Sprintf("orientation %d, %s", orientation, name)
			r := decodedAny(t, made)
			wantQuadrants(t, where, r, tc.want)
			wantClean(t, where, made)
		}
	}
}

func decodedAny(t testing.TB, made picture.Squares) image.Image {
	t.Helper()
	m, _, err := image.Decode(bytes.NewReader(made.Pictures[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wantClean checks that nothing but pixels is left.
func wantClean(t testing.TB, where string, made picture.Squares) {
	t.Helper()
	for _, square := range made.Pictures {
		for _, trace := range []string{picturetest.Place, "Exif", "eXIf", "ICC", "iCCP", "tEXt", "<script", "\xff\xe1", "\xff\xfe", "PK\x03\x04"} {
			if bytes.Contains(square.Data[:min(len(square.Data), 600)], []byte(trace)) || len(trace) > 4 && bytes.Contains(square.Data, []byte(trace)) {
				t.Errorf("%s: the picture of %d has %q", where, square.Size, trace)
			}
		}
	}
}

// TestSEC149NothingButPixels: the place of a photograph, comments, colour profiles, and another
// file before the end or after it are gone.
func TestSEC149NothingButPixels(t *testing.T) {
	t.Parallel()
	const page = "<script>alert(1)</script>PK\x03\x04" + picturetest.Place
	m := picturetest.Quadrants(80, 80, four)
	for name, tc := range map[string]struct {
		data     []byte
		declared string
	}{
		"JPEG":      {append(picturetest.JPEGWithEXIF(picturetest.JPEG(m), picturetest.EXIF(binary.LittleEndian, 1)), page...), "image/jpeg"},
		"PNG":       {append(picturetest.PNGWithChunk(picturetest.PNG(m), "tEXt", []byte("Comment\x00"+page)), page...), "image/png"},
		"PNG, ICC":  {picturetest.PNGWithChunk(picturetest.PNG(m), "iCCP", []byte(page)), "image/png"},
		"GIF":       {append(picturetest.GIF(m), page...), "image/gif"},
		"WebP":      {append(picturetest.WebPWithEXIF(80, 80, func(x, _ int) bool { return x > 9 }, []byte(page)), page...), "image/webp"},
		"bad EXIF":  {picturetest.JPEGWithEXIF(picturetest.JPEG(m), []byte("II*\x00\xff\xff\xff\xff"+page)), "image/jpeg"},
		"EXIF of 9": {picturetest.JPEGWithEXIF(picturetest.JPEG(m), picturetest.EXIF(binary.BigEndian, 9)), "image/jpeg"},
	} {
		if !bytes.Contains(tc.data, []byte(picturetest.Place)) {
			t.Fatalf("%s: nothing to remove", name)
		}
		made := squares(t, tc.data, tc.declared)
		wantClean(t, name, made)
		if tc.declared != "image/webp" {
			wantQuadrants(t, name, decodedAny(t, made), four)
		}
	}
}

// TestSEC148Refused: what is no image, another one than declared, too large or damaged is refused
// with a reason. Only the header of one that is too large is read.
func TestSEC148Refused(t *testing.T) {
	t.Parallel()
	m := picturetest.Quadrants(80, 80, four)
	photo, drawing, animation := picturetest.JPEG(m), picturetest.PNG(m), picturetest.GIF(m)
	still := picturetest.WebP(80, 80, func(x, _ int) bool { return x > 9 })
	scans := append(bytes.Clone(photo[:len(photo)-2]), bytes.Repeat([]byte("\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"), 65)...)
	for name, tc := range map[string]struct {
		data     []byte
		declared string
		want     error
	}{
		"nothing":                      {nil, "image/png", picture.ErrInvalid},
		"SVG":                          {[]byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), "image/png", picture.ErrType},
		"HTML":                         {[]byte(`<!doctype html><script>`), "", picture.ErrType},
		"ICO":                          {[]byte("\x00\x00\x01\x00\x01\x00"), "", picture.ErrType},
		"BMP":                          {[]byte("BM......"), "", picture.ErrType},
		"RIFF without WebP":            {[]byte("RIFF\x00\x00\x00\x00WAVEfmt "), "image/webp", picture.ErrType},
		"PNG called JPEG":              {drawing, "image/jpeg", picture.ErrType},
		"JPEG called PNG":              {photo, "image/png", picture.ErrType},
		"GIF called WebP":              {animation, "image/webp", picture.ErrType},
		"animated WebP":                {picturetest.AnimatedWebP(), "image/webp", picture.ErrAnimated},
		"PNG bomb":                     {picturetest.PNGOf(drawing, 50_000, 50_000), "image/png", picture.ErrDimensions},
		"PNG, too wide":                {picturetest.PNGOf(drawing, 4097, 1), "image/png", picture.ErrDimensions},
		"GIF bomb":                     {picturetest.GIFOf(animation, 65535, 65535), "image/gif", picture.ErrDimensions},
		"JPEG bomb":                    {picturetest.JPEGOf(photo, 65500, 65500), "image/jpeg", picture.ErrDimensions},
		"WebP bomb":                    {picturetest.WebP(16384, 1, func(int, int) bool { return true }), "image/webp", picture.ErrDimensions},
		"JPEG of many scans":           {scans, "image/jpeg", picture.ErrInvalid},
		"PNG of no size":               {picturetest.PNGOf(drawing, 0, 0), "image/png", picture.ErrInvalid},
		"GIF of no size":               {picturetest.GIFOf(animation, 0, 0), "image/gif", picture.ErrInvalid},
		"PNG with a wrong checksum":    {append(bytes.Clone(drawing[:30]), 1, 2, 3), "image/png", picture.ErrInvalid},
		"JPEG header":                  {photo[:3], "image/jpeg", picture.ErrInvalid},
		"PNG header":                   {drawing[:8], "image/png", picture.ErrInvalid},
		"GIF header":                   {animation[:6], "image/gif", picture.ErrInvalid},
		"WebP header":                  {still[:12], "image/webp", picture.ErrInvalid},
		"half a JPEG":                  {photo[:len(photo)/2], "image/jpeg", picture.ErrInvalid},
		"half a PNG":                   {drawing[:len(drawing)/2], "image/png", picture.ErrInvalid},
		"half a GIF":                   {animation[:len(animation)/2], "image/gif", picture.ErrInvalid},
		"half a WebP":                  {still[:len(still)/2], "image/webp", picture.ErrInvalid},
		"GIF whose frame is too large": {picturetest.GIFOf(animation, 10, 10), "image/gif", picture.ErrInvalid},
		"PNG with another size":        {picturetest.PNGOf(drawing, 4096, 4096), "image/png", picture.ErrInvalid},
		"JPEG of another size":         {picturetest.JPEGOf(photo, 4000, 4000), "image/jpeg", picture.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, err := picture.Open(tc.data, tc.declared)
			if err == nil {
				_, err = source.Squares()
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("error = %v, want %v", err, tc.want)
			}
		})
	}
}

// TestSEC148MemoryIsCounted: an image counts with the memory that its pixels need.
func TestSEC148MemoryIsCounted(t *testing.T) {
	t.Parallel()
	deep := image.NewNRGBA64(image.Rect(0, 0, 1000, 1000))
	for name, tc := range map[string]struct {
		data  []byte
		least int64
	}{
		"JPEG":              {picturetest.JPEG(picturetest.Plain(1000, 1000, red)), 3_000_000},
		"PNG":               {picturetest.PNG(picturetest.Plain(1000, 1000, red)), 6_000_000},
		"16 bits":           {picturetest.PNG(deep), 12_000_000},
		"WebP":              {picturetest.WebP(1000, 1000, func(int, int) bool { return true }), 8_000_000},
		"CMYK":              {picturetest.CMYKJPEG(64, 64), 64 * 64 * 12},
		"many coefficients": {picturetest.GreyJPEG(16, 16), 16 * 16 * 20},
	} {
		source, err := picture.Open(tc.data, "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if source.Memory() < tc.least {
			t.Errorf("%s counts with %d bytes, want at least %d", name, source.Memory(), tc.least)
		}
	}
}

// FuzzSquares: whatever is sent, the result is pictures of the right size without metadata, or an
// error of the client's.
func FuzzSquares(f *testing.F) {
	m := picturetest.Quadrants(24, 20, four)
	for _, data := range [][]byte{
		picturetest.JPEG(m), picturetest.PNG(m), picturetest.GIF(m, m), picturetest.WebP(20, 24, func(x, y int) bool { return x > y }),
		picturetest.JPEGWithEXIF(picturetest.JPEG(m), picturetest.EXIF(binary.LittleEndian, 6)),
		picturetest.PNGWithChunk(picturetest.PNG(m), "eXIf", picturetest.EXIF(binary.BigEndian, 8)),
		picturetest.WebPWithEXIF(20, 24, func(x, y int) bool { return x > y }, picturetest.EXIF(binary.LittleEndian, 3)),
		picturetest.AnimatedWebP(), picturetest.CMYKJPEG(16, 16), picturetest.GreyJPEG(16, 16),
	} {
		f.Add(data, "")
	}
	f.Fuzz(func(t *testing.T, data []byte, declared string) {
		source, err := picture.Open(data, declared)
		if err == nil && source.Memory() > 8<<20 {
			return // to be fast
		}
		var made picture.Squares
		if err == nil {
			made, err = source.Squares()
		}
		if err != nil {
			for _, known := range []error{picture.ErrType, picture.ErrAnimated, picture.ErrDimensions, picture.ErrInvalid} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatalf("error = %v", err)
		}
		for i, size := range picture.Sizes {
			config, format, err := image.DecodeConfig(bytes.NewReader(made.Pictures[i].Data))
			if err != nil || config.Width != config.Height || config.Width > size || config.Width < 1 || (format == "png") != (made.Extension == "png") {
				t.Errorf("picture %d = %s, %+v, %v", size, format, config, err)
			}
			if bytes.Contains(made.Pictures[i].Data, []byte("Exif")) {
				t.Errorf("picture %d has metadata", size)
			}
		}
	})
}

// BenchmarkSquares decodes a photograph of 12 megapixels.
func BenchmarkSquares(b *testing.B) {
	m := image.NewNRGBA(image.Rect(0, 0, 4032, 3024))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range m.Pix {
		m.Pix[i] = uint8(i/4032) + uint8(random.UintN(8)) | uint8(255*(i%4/3))
	}
	data := picturetest.JPEG(m)
	b.ReportAllocs()
	for b.Loop() {
		squares(b, data, "image/jpeg")
	}
}
