package dashboard

import (
	"fmt"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quietZone is the margin that a QR code needs, in modules (ISO/IEC 18004).
const quietZone = 4

// qrCode is a QR code as one path of an SVG, a unit a module.
type qrCode struct {
	Size int
	Path string
}

// newQR makes the QR code of the text.
func newQR(text string) (qrCode, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return qrCode{}, fmt.Errorf("QR code: %w", err)
	}
	size := code.Bounds().Dx()
	var path strings.Builder
	for y := range size {
		for x := 0; x < size; x++ {
			from := x
			for x < size && code.At(x, y) == color.Black {
				x++
			}
			if x > from {
				fmt.Fprintf(&path, "M%d %dh%dv1H%dz", from+quietZone, y+quietZone, x-from, from+quietZone)
			}
		}
	}
	return qrCode{Size: size + 2*quietZone, Path: path.String()}, nil
}
