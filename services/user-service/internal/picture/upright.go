package picture

import (
	"bytes"
	"image"
	"image/color"

	"github.com/bep/imagemeta"
)

// The colour models that take more memory than others.
var cmyk, rgba64, nrgba64, gray16 = color.CMYKModel, color.RGBA64Model, color.NRGBA64Model, color.Gray16Model

// orientation returns the orientation that the EXIF data of an image declares, 1 to 8 (EXIF 2.32,
// tag 0x0112). It is 1 if there is none or if the data cannot be read: cameras and editors write
// much that is wrong, and the image can be shown regardless.
func orientation(format Format, data []byte) int {
	formats := map[Format]imagemeta.ImageFormat{JPEG: imagemeta.JPEG, PNG: imagemeta.PNG, WebP: imagemeta.WebP}
	kind, ok := formats[format]
	if !ok {
		return 1
	}
	declared := 1
	_, err := imagemeta.Decode(imagemeta.Options{
		R: bytes.NewReader(data), ImageFormat: kind, Sources: imagemeta.EXIF,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool { return tag.Namespace == "IFD0" && tag.Tag == "Orientation" },
		HandleTag: func(tag imagemeta.TagInfo) error {
			if value, ok := tag.Value.(uint16); ok {
				declared = int(value)
			}
			return imagemeta.ErrStopWalking
		},
		LimitNumTags: 1000,
	})
	if err != nil || declared < 1 || declared > 8 {
		return 1
	}
	return declared
}

// upright returns the square turned and mirrored as its orientation asks.
func upright(square *image.RGBA, orientation int) *image.RGBA {
	if orientation == 1 {
		return square
	}
	last := square.Rect.Dx() - 1
	turned := image.NewRGBA(square.Rect)
	for y := range last + 1 {
		for x := range last + 1 {
			fromX, fromY := x, y
			switch orientation {
			case 2: // mirrored
				fromX = last - x
			case 3: // upside down
				fromX, fromY = last-x, last-y
			case 4: // mirrored and upside down
				fromY = last - y
			case 5: // mirrored along the diagonal
				fromX, fromY = y, x
			case 6: // to be turned clockwise
				fromX, fromY = y, last-x
			case 7: // mirrored along the other diagonal
				fromX, fromY = last-y, last-x
			case 8: // to be turned counter-clockwise
				fromX, fromY = last-y, x
			}
			turned.SetRGBA(x, y, square.RGBAAt(fromX, fromY))
		}
	}
	return turned
}
