package keystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The layout of a page and of its elements (bbolt, internal/common: Page, and
// InBucket). Numbers are in the byte order of the machine.
const (
	pageFlagsAt, pageCountAt, pageOverflowAt = 8, 10, 12
	branchPage, leafPage, freelistPage       = 0x01, 0x02, 0x10
	elementBytes                             = 16
	bucketElement                            = 0x01
	bucketHeadBytes                          = 16
	manyFree                                 = 0xFFFF // the number of ids stands before them
	noFreelist                               = ^uint64(0)
	metaRootAt, metaFreelistAt, metaHighAt   = 16, 32, 40
)

// checkPages follows every reference from page to page in the file, with a look at
// each before it is followed, and returns errDamaged where one leads out of the
// file, out of its page, or to what is free or another's. bbolt follows them
// unseen: one that leads anywhere in memory cannot be caught there.
func checkPages(name string, pageSize int) error {
	f, err := os.Open(name) // #nosec G304 -- the operator's own setting
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it is only read
	meta, err := newestMeta(f, pageSize)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w := &pageWalk{file: f, size: uint64(pageSize), end: binary.NativeEndian.Uint64(meta[metaHighAt:])} // #nosec G115 -- a power of two
	if length := uint64(info.Size()); w.end < metaPages || w.end > length/w.size {                      // #nosec G115 -- never negative
		return fmt.Errorf("%w: it has %d bytes, and %d pages belong to it", errDamaged, length, w.end)
	}
	w.owned = make([]bool, w.end)
	w.owned[0], w.owned[1] = true, true
	if err := w.tree(binary.NativeEndian.Uint64(meta[metaRootAt:])); err != nil {
		return err
	}
	return w.free(binary.NativeEndian.Uint64(meta[metaFreelistAt:]))
}

// newestMeta returns the meta that bbolt goes by.
func newestMeta(f io.ReaderAt, pageSize int) ([]byte, error) {
	var newest []byte
	for page := range metaPages {
		meta, err := readMeta(f, page*pageSize)
		if err != nil && !errors.Is(err, errOlderFile) {
			return nil, err
		}
		if err == nil && (newest == nil || binary.NativeEndian.Uint64(meta[metaTxidAt:]) > binary.NativeEndian.Uint64(newest[metaTxidAt:])) {
			newest = meta
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("%w: it has no head", errDamaged)
	}
	return newest, nil
}

// pageWalk goes once over the pages of a file.
type pageWalk struct {
	file      io.ReaderAt
	size, end uint64
	owned     []bool
}

// page reads a page, with those that continue it, which nobody else has.
func (w *pageWalk) page(id uint64) (flags uint16, page []byte, err error) {
	if id < metaPages || id >= w.end {
		return 0, nil, fmt.Errorf("%w: page %d is not one of %d", errDamaged, id, w.end)
	}
	head := make([]byte, boltPageHead)
	if _, err := w.file.ReadAt(head, int64(id*w.size)); err != nil { // #nosec G115 -- within the file
		return 0, nil, err
	}
	more := uint64(binary.NativeEndian.Uint32(head[pageOverflowAt:]))
	if named := binary.NativeEndian.Uint64(head); named != id || more >= w.end-id {
		return 0, nil, fmt.Errorf("%w: page %d calls itself page %d, with %d more of %d", errDamaged, id, named, more, w.end)
	}
	for part := id; part <= id+more; part++ {
		if w.owned[part] {
			return 0, nil, fmt.Errorf("%w: page %d belongs to two", errDamaged, part)
		}
		w.owned[part] = true
	}
	page = make([]byte, (1+more)*w.size)
	if _, err := w.file.ReadAt(page, int64(id*w.size)); err != nil { // #nosec G115 -- within the file
		return 0, nil, err
	}
	return binary.NativeEndian.Uint16(head[pageFlagsAt:]), page, nil
}

// tree follows the page, and what is under it.
func (w *pageWalk) tree(id uint64) error {
	flags, page, err := w.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case leafPage:
		err = w.leaf(page)
	case branchPage:
		err = w.branch(page)
	default:
		err = fmt.Errorf("%w: its flags are %#x", errDamaged, flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (w *pageWalk) branch(page []byte) error {
	elements, err := elementsOf(page)
	if err != nil {
		return err
	}
	if elements.n == 0 {
		return fmt.Errorf("%w: a branch that leads nowhere", errDamaged)
	}
	for i := range elements.n {
		e := elements.head(i)
		if _, err := elements.content(i, binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])); err != nil {
			return err
		}
		if err := w.tree(binary.NativeEndian.Uint64(e[8:])); err != nil {
			return err
		}
	}
	return nil
}

// leaf looks at a leaf, or at one that stands within the value of a bucket.
func (w *pageWalk) leaf(page []byte) error {
	elements, err := elementsOf(page)
	if err != nil {
		return err
	}
	for i := range elements.n {
		e := elements.head(i)
		at, key, value := binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		content, err := elements.content(i, at, key, value)
		if err != nil {
			return err
		}
		if binary.NativeEndian.Uint32(e)&bucketElement == 0 {
			continue
		}
		if err := w.bucket(content[key:]); err != nil {
			return err
		}
	}
	return nil
}

// bucket looks at a bucket, which is a page somewhere, or stands here.
func (w *pageWalk) bucket(value []byte) error {
	if len(value) < bucketHeadBytes {
		return fmt.Errorf("%w: a bucket of %d bytes", errDamaged, len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.tree(root)
	}
	page := value[bucketHeadBytes:]
	if len(page) < boltPageHead || binary.NativeEndian.Uint16(page[pageFlagsAt:]) != leafPage {
		return fmt.Errorf("%w: a bucket without its page", errDamaged)
	}
	return w.leaf(page)
}

// free looks at the list of free pages: they and those that are owned are all
// there are.
func (w *pageWalk) free(id uint64) error {
	if id == noFreelist {
		return nil // bbolt finds them by following all references
	}
	flags, page, err := w.page(id)
	if err != nil {
		return err
	}
	ids := page[boltPageHead:]
	n := uint64(binary.NativeEndian.Uint16(page[pageCountAt:]))
	if n == manyFree {
		n, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if flags != freelistPage || n > uint64(len(ids)/8) {
		return fmt.Errorf("%w: page %d does not list %d free pages", errDamaged, id, n)
	}
	for i := range n {
		free := binary.NativeEndian.Uint64(ids[8*i:])
		if free >= w.end || w.owned[free] {
			return fmt.Errorf("%w: page %d is free, and is not", errDamaged, free)
		}
		w.owned[free] = true
	}
	for page, owned := range w.owned {
		if !owned {
			return fmt.Errorf("%w: page %d is nobody's", errDamaged, page)
		}
	}
	return nil
}

// pageElements are the elements of a page: their heads, and behind them, without a
// gap, what each holds.
type pageElements struct {
	page []byte
	n    int
	next int // where what the next one holds begins
}

func elementsOf(page []byte) (*pageElements, error) {
	n := int(binary.NativeEndian.Uint16(page[pageCountAt:]))
	next := boltPageHead + n*elementBytes
	if next > len(page) {
		return nil, fmt.Errorf("%w: %d elements in %d bytes", errDamaged, n, len(page))
	}
	return &pageElements{page: page, n: n, next: next}, nil
}

func (p *pageElements) head(i int) []byte { return p.page[boltPageHead+i*elementBytes:][:elementBytes] }

// content is what an element holds, at that distance from its head. One that does
// not begin where the one before has ended is not as it was written: were it
// taken, elements could be missing and nobody would see it.
func (p *pageElements) content(i int, distance uint32, lengths ...uint32) ([]byte, error) {
	begin := uint64(boltPageHead+i*elementBytes) + uint64(distance) // #nosec G115 -- within a page
	end := begin
	for _, length := range lengths {
		end += uint64(length)
	}
	if begin != uint64(p.next) || end > uint64(len(p.page)) { // #nosec G115 -- within a page
		return nil, fmt.Errorf("%w: element %d is at %d to %d, not from %d, of %d bytes", errDamaged, i, begin, end, p.next, len(p.page))
	}
	p.next = int(end) // #nosec G115 -- within a page
	return p.page[begin:end], nil
}
