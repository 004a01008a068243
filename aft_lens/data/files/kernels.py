"""Triton kernels that make images of decoded pictures, a batch at a time, as the CPU makes them one by one.

Pictures are uint8 `y x c` in one buffer, of any size. A program makes `BLOCK` pixels of one image.
"""

import triton
import triton.language as tl

TABLE, COLOUR, SHARPNESS, MATRIX = (tl.constexpr(i) for i in range(1, 5))
"""What `change_kernel` does with an image; 0 is a copy."""
AUTOCONTRAST, EQUALIZE, CONTRAST = (tl.constexpr(i) for i in range(1, 4))
"""What `table_kernel` makes a table for."""


@triton.jit
def clip(value):
    """To a byte's range."""
    return tl.minimum(tl.maximum(value, 0.0), 255.0)


@triton.jit
def tap(distance, CUBIC: tl.constexpr):
    """Weight of a source pixel at a distance, in pixels of the coarser side: Keys' cubic with a = -1/2, or linear."""
    x = tl.abs(distance)
    if CUBIC:
        near = (1.5 * x - 2.5) * x * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        return tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))
    return tl.maximum(1.0 - x, 0.0)


@triton.jit
def first_tap(centre, support, side):
    """First source pixel that counts, and the one after the last."""
    return (
        tl.maximum(centre - support + 0.5, 0.0).to(tl.int32),
        tl.minimum((centre + support + 0.5).to(tl.int32), side),
    )


@triton.jit
def view_kernel(
    source, places, views, out, ROWS, COLUMNS, CUBIC: tl.constexpr, VIEW: tl.constexpr, BLOCK: tl.constexpr
):
    """Box, antialiased resize, move and flip; rows of the picture are resized first and rounded, as Pillow does."""
    image = tl.program_id(1).to(tl.int64)
    view = views + image * VIEW
    top, left, rows, columns = tl.load(view), tl.load(view + 1), tl.load(view + 2), tl.load(view + 3)
    scale_y = rows.to(tl.float32) / tl.load(view + 4).to(tl.float32)
    scale_x = columns.to(tl.float32) / tl.load(view + 5).to(tl.float32)
    step_y, step_x = tl.load(view + 12), tl.load(view + 13)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // COLUMNS, pixel % COLUMNS
    x = tl.where(tl.load(view + 10) != 0, COLUMNS - 1 - x, x)
    y, x = y + tl.load(view + 8), x + tl.load(view + 9)
    shown = (y >= 0) & (y < ROWS) & (x >= 0) & (x < COLUMNS) & (pixel < ROWS * COLUMNS)
    coarse_y, coarse_x = tl.maximum(scale_y, 1.0), tl.maximum(scale_x, 1.0)
    reach: tl.constexpr = 2.0 if CUBIC else 1.0
    centre_y = (y + tl.load(view + 6)).to(tl.float32) * scale_y + 0.5 * scale_y
    centre_x = (x + tl.load(view + 7)).to(tl.float32) * scale_x + 0.5 * scale_x
    first_y, end_y = first_tap(centre_y, reach * coarse_y, rows)
    first_x, end_x = first_tap(centre_x, reach * coarse_x, columns)
    start = source + tl.load(places + image) + tl.load(view + 11) + (top * step_y + left * step_x).to(tl.int64)
    red = tl.zeros([BLOCK], tl.float32)
    green, blue, weights_y = red, red, red
    for i in range((2.0 * reach * coarse_y).to(tl.int32) + 2):
        source_y = first_y + i
        in_y = shown & (source_y < end_y)
        weight_y = tl.where(in_y, tap((source_y - centre_y + 0.5) / coarse_y, CUBIC), 0.0)
        row = start + source_y * step_y
        row_red = tl.zeros([BLOCK], tl.float32)
        row_green, row_blue, weights_x = row_red, row_red, row_red
        for j in range((2.0 * reach * coarse_x).to(tl.int32) + 2):
            source_x = first_x + j
            on = in_y & (source_x < end_x)
            weight = tl.where(on, tap((source_x - centre_x + 0.5) / coarse_x, CUBIC), 0.0)
            place = row + source_x * step_x
            row_red += weight * tl.load(place, mask=on, other=0).to(tl.float32)
            row_green += weight * tl.load(place + 1, mask=on, other=0).to(tl.float32)
            row_blue += weight * tl.load(place + 2, mask=on, other=0).to(tl.float32)
            weights_x += weight
        one = tl.where(weights_x == 0.0, 0.0, 1.0 / tl.where(weights_x == 0.0, 1.0, weights_x))
        red += weight_y * tl.floor(clip(row_red * one) + 0.5)
        green += weight_y * tl.floor(clip(row_green * one) + 0.5)
        blue += weight_y * tl.floor(clip(row_blue * one) + 0.5)
        weights_y += weight_y
    one = tl.where(weights_y == 0.0, 0.0, 1.0 / tl.where(weights_y == 0.0, 1.0, weights_y))
    kept = pixel < ROWS * COLUMNS
    target = out + image * 3 * ROWS * COLUMNS + pixel
    tl.store(target, tl.floor(clip(red * one) + 0.5).to(tl.uint8), mask=kept)
    tl.store(target + ROWS * COLUMNS, tl.floor(clip(green * one) + 0.5).to(tl.uint8), mask=kept)
    tl.store(target + 2 * ROWS * COLUMNS, tl.floor(clip(blue * one) + 0.5).to(tl.uint8), mask=kept)


@triton.jit
def grey(red, green, blue):
    """Pillow's L: ITU-R 601 in whole numbers."""
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


@triton.jit
def blend(less, value, factor):
    """Pillow's blend of two bytes: `factor` 1 is `value`; the rest is cut off."""
    return clip(less.to(tl.float32) + factor * (value - less).to(tl.float32)).to(tl.uint8)


@triton.jit
def table_kernel(images, members, kinds, factors, tables, SIZE, BLOCK: tl.constexpr):
    """The table of values of a channel that an operation makes of the image itself."""
    member, channel = tl.program_id(0), tl.program_id(1)
    image = tl.load(members + member).to(tl.int64)
    kind = tl.load(kinds + member)
    start = images + image * 3 * SIZE
    level = tl.arange(0, 256)
    table = level.to(tl.uint8)
    if kind == CONTRAST:
        total = tl.zeros([BLOCK], tl.int32)
        for first in range(0, SIZE, BLOCK):
            pixel = first + tl.arange(0, BLOCK)
            on = pixel < SIZE
            red = tl.load(start + pixel, mask=on, other=0).to(tl.int32)
            green = tl.load(start + SIZE + pixel, mask=on, other=0).to(tl.int32)
            blue = tl.load(start + 2 * SIZE + pixel, mask=on, other=0).to(tl.int32)
            total += tl.where(on, grey(red, green, blue), 0)
        mean = (2 * tl.sum(total, 0).to(tl.int64) + SIZE) // (2 * SIZE)
        table = blend(mean.to(tl.int32), level, tl.load(factors + member))
    else:
        count = tl.zeros([256], tl.int32)
        for first in range(0, SIZE, BLOCK):
            pixel = first + tl.arange(0, BLOCK)
            count += tl.histogram(tl.load(start + channel * SIZE + pixel, mask=pixel < SIZE, other=0).to(tl.int32), 256)
        count -= tl.where(level == 0, tl.cdiv(SIZE, BLOCK) * BLOCK - SIZE, 0)
        low = tl.min(tl.where(count > 0, level, 255), 0)
        high = tl.max(tl.where(count > 0, level, 0), 0)
        if kind == AUTOCONTRAST:
            if high > low:
                scale = 255.0 / (high - low).to(tl.float64)
                value = level.to(tl.float64) * scale + (-low).to(tl.float64) * scale
                table = tl.minimum(tl.maximum(value, 0.0), 255.0).to(tl.uint8)
        else:
            last = tl.sum(tl.where(level == high, count, 0), 0)
            step = (SIZE - last) // 255
            if (high > low) & (step > 0):
                below = tl.cumsum(count, 0) - count
                table = tl.minimum((step // 2 + below) // step, 255).to(tl.uint8)
    tl.store(tables + (image * 3 + channel) * 256 + level, table)


@triton.jit
def cubic(v0, v1, v2, v3, d):
    """Pillow's cubic through four values, between the second and the third; what is below 0 and above 255 is cut."""
    p3 = 2.0 * (v0 - v1) + v2 - v3
    p4 = -v0 + v1 - v2 + v3
    return v1 + d * (-v0 + v2 + d * (p3 + d * p4))


@triton.jit
def change_kernel(
    source, out, kinds, numbers, tables, fills, ROWS, COLUMNS, NUMBERS: tl.constexpr, BLOCK: tl.constexpr
):
    """One operation of RandAugment an image."""
    image = tl.program_id(1).to(tl.int64)
    kind = tl.load(kinds + image)
    size = ROWS * COLUMNS
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    start, target = source + image * 3 * size, out + image * 3 * size
    if kind == TABLE:
        by_table(start, target, tables + image * 768, pixel, size)
    elif kind == COLOUR:
        more_colour(start, target, tl.load(numbers + image * NUMBERS), pixel, size)
    elif kind == SHARPNESS:
        sharpened(start, target, tl.load(numbers + image * NUMBERS), pixel, ROWS, COLUMNS)
    elif kind == MATRIX:
        warped(start, target, numbers + image * NUMBERS, fills, pixel, ROWS, COLUMNS)
    else:
        for channel in tl.static_range(3):
            value = tl.load(start + channel * size + pixel, mask=pixel < size, other=0)
            tl.store(target + channel * size + pixel, value, mask=pixel < size)


@triton.jit
def by_table(start, target, table, pixel, size):
    """Every value becomes what a table of its channel says."""
    for channel in tl.static_range(3):
        value = tl.load(start + channel * size + pixel, mask=pixel < size, other=0).to(tl.int32)
        tl.store(target + channel * size + pixel, tl.load(table + channel * 256 + value), mask=pixel < size)


@triton.jit
def more_colour(start, target, factor, pixel, size):
    """The picture blended into its grey."""
    on = pixel < size
    red = tl.load(start + pixel, mask=on, other=0).to(tl.int32)
    green = tl.load(start + size + pixel, mask=on, other=0).to(tl.int32)
    blue = tl.load(start + 2 * size + pixel, mask=on, other=0).to(tl.int32)
    less = grey(red, green, blue)
    tl.store(target + pixel, blend(less, red, factor), mask=on)
    tl.store(target + size + pixel, blend(less, green, factor), mask=on)
    tl.store(target + 2 * size + pixel, blend(less, blue, factor), mask=on)


@triton.jit
def sharpened(start, target, factor, pixel, ROWS, COLUMNS):
    """The picture blended into its mean over 3 x 3 pixels, the middle counted five times; the border stays."""
    size = ROWS * COLUMNS
    on = pixel < size
    y, x = pixel // COLUMNS, pixel % COLUMNS
    inner = on & (y > 0) & (y < ROWS - 1) & (x > 0) & (x < COLUMNS - 1)
    for channel in tl.static_range(3):
        place = start + channel * size + pixel
        value = tl.load(place, mask=on, other=0).to(tl.int32)
        total = 4 * value
        for i in tl.static_range(3):
            for j in tl.static_range(3):
                total += tl.load(place + (i - 1) * COLUMNS + j - 1, mask=inner, other=0).to(tl.int32)
        smooth = tl.where(inner, (2 * total + 13) // 26, value)
        tl.store(target + channel * size + pixel, blend(smooth, value, factor), mask=on)


@triton.jit
def warped(start, target, matrix, fills, pixel, ROWS, COLUMNS):
    """Pillow's affine transform, bicubic; what comes in from outside has the fill's colour."""
    size = ROWS * COLUMNS
    on = pixel < size
    middle_y, middle_x = (pixel // COLUMNS).to(tl.float32) + 0.5, (pixel % COLUMNS).to(tl.float32) + 0.5
    in_x = tl.load(matrix) * middle_x + tl.load(matrix + 1) * middle_y + tl.load(matrix + 2)
    in_y = tl.load(matrix + 3) * middle_x + tl.load(matrix + 4) * middle_y + tl.load(matrix + 5)
    inside = on & (in_x >= 0.0) & (in_x < COLUMNS) & (in_y >= 0.0) & (in_y < ROWS)
    low_x, low_y = tl.floor(in_x - 0.5), tl.floor(in_y - 0.5)
    part_x, part_y = in_x - 0.5 - low_x, in_y - 0.5 - low_y
    left, above = low_x.to(tl.int32) - 1, low_y.to(tl.int32) - 1
    x0, x1 = within(left, COLUMNS), within(left + 1, COLUMNS)
    x2, x3 = within(left + 2, COLUMNS), within(left + 3, COLUMNS)
    y0, y1 = within(above, ROWS) * COLUMNS, within(above + 1, ROWS) * COLUMNS
    y2, y3 = within(above + 2, ROWS) * COLUMNS, within(above + 3, ROWS) * COLUMNS
    for channel in tl.static_range(3):
        place = start + channel * size
        r0 = cubic_row(place + y0, x0, x1, x2, x3, part_x, inside)
        r1 = cubic_row(place + y1, x0, x1, x2, x3, part_x, inside)
        r2 = cubic_row(place + y2, x0, x1, x2, x3, part_x, inside)
        r3 = cubic_row(place + y3, x0, x1, x2, x3, part_x, inside)
        value = clip(cubic(r0, r1, r2, r3, part_y)).to(tl.uint8)
        tl.store(target + channel * size + pixel, tl.where(inside, value, tl.load(fills + channel)), mask=on)


@triton.jit
def within(place, side):
    """A place on an axis, or the nearest one."""
    return tl.minimum(tl.maximum(place, 0), side - 1)


@triton.jit
def cubic_row(row, x0, x1, x2, x3, part, inside):
    """`cubic` along a row."""
    v0 = tl.load(row + x0, mask=inside, other=0).to(tl.float32)
    v1 = tl.load(row + x1, mask=inside, other=0).to(tl.float32)
    v2 = tl.load(row + x2, mask=inside, other=0).to(tl.float32)
    v3 = tl.load(row + x3, mask=inside, other=0).to(tl.float32)
    return cubic(v0, v1, v2, v3, part)


@triton.jit
def mixed(number):
    """Murmur3's finalizer."""
    number = (number ^ (number >> 16)) * 0x85EBCA6B
    number = (number ^ (number >> 13)) * 0xC2B2AE35
    return number ^ (number >> 16)


@triton.jit
def uniform(number, seed):
    """As `erasing` has it: float32 in (0, 1)."""
    return ((mixed(mixed(number) ^ seed) >> 8).to(tl.float32) + 0.5) * (1.0 / 16777216.0)


@triton.jit
def normal_kernel(images, out, boxes, seeds, means, stds, ROWS, COLUMNS, BLOCK: tl.constexpr):
    """Bytes to normalised float32, with noise in the box of each image (top, left, rows, columns; 0 rows: none)."""
    image = tl.program_id(1).to(tl.int64)
    box = boxes + image * 4
    top, left, rows, columns = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    seed = tl.load(seeds + image).to(tl.uint32)
    size = ROWS * COLUMNS
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    on = pixel < size
    y, x = pixel // COLUMNS, pixel % COLUMNS
    erased = on & (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
    for channel in tl.static_range(3):
        place = image * 3 * size + channel * size + pixel
        value = tl.load(images + place, mask=on, other=0).to(tl.float32) * (1.0 / 255.0)
        value = (value - tl.load(means + channel)) / tl.load(stds + channel)
        if rows > 0:
            number = (2 * (channel * size + pixel)).to(tl.uint32)
            first, second = uniform(number, seed), uniform(number + 1, seed)
            noise = tl.sqrt(-2.0 * tl.log(first)) * tl.cos(6.283185307179586 * second)
            value = tl.where(erased, noise, value)
        tl.store(out + place, value, mask=on)
