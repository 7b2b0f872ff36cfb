// NUL-terminated strings and the paths made of them. Nothing here calls the kernel.

/// Length without the NUL.
pub unsafe fn length(s: *const u8) -> usize {
    let mut n = 0;
    while *s.add(n) != 0 {
        n += 1;
    }
    n
}

pub unsafe fn equal(a: *const u8, b: *const u8) -> bool {
    let mut i = 0;
    while *a.add(i) == *b.add(i) {
        if *a.add(i) == 0 {
            return true;
        }
        i += 1;
    }
    false
}

pub unsafe fn contains(s: *const u8, byte: u8) -> bool {
    let mut i = 0;
    while *s.add(i) != 0 {
        if *s.add(i) == byte {
            return true;
        }
        i += 1;
    }
    false
}

/// A decimal number up to 999999999, or -1.
pub unsafe fn parse_decimal(s: *const u8) -> i32 {
    let mut value: i32 = 0;
    let mut i = 0;
    while *s.add(i) != 0 {
        let digit = *s.add(i);
        if digit < b'0' || digit > b'9' || i >= 9 {
            return -1;
        }
        value = value * 10 + (digit - b'0') as i32;
        i += 1;
    }
    if i == 0 { -1 } else { value }
}

/// Writes `value` in decimal and a NUL; `to` has room for 21 bytes. Returns the length without the NUL.
pub unsafe fn format_decimal(to: *mut u8, value: u64) -> usize {
    let mut digits = 1;
    let mut rest = value / 10;
    while rest > 0 {
        digits += 1;
        rest /= 10;
    }
    let mut i = digits;
    rest = value;
    while i > 0 {
        i -= 1;
        *to.add(i) = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    *to.add(digits) = 0;
    digits
}

/// Appends `s` to the string of length `len` in a buffer of `capacity` bytes. Returns the new length, or -1
/// where there is no room for it and its NUL; the buffer is then as before.
pub unsafe fn append(to: *mut u8, len: isize, capacity: usize, s: *const u8) -> isize {
    if len < 0 {
        return -1;
    }
    let n = length(s);
    if len as usize + n + 1 > capacity {
        return -1;
    }
    let mut i = 0;
    while i <= n {
        *to.add(len as usize + i) = *s.add(i);
        i += 1;
    }
    len + n as isize
}

/// Finds `name` (without `=`) in an environment of `count` strings: its value, or null.
pub unsafe fn variable(env: *const *const u8, count: usize, name: *const u8) -> *const u8 {
    let n = length(name);
    let mut i = 0;
    while i < count {
        let entry = *env.add(i);
        let mut k = 0;
        while k < n && *entry.add(k) == *name.add(k) {
            k += 1;
        }
        if k == n && *entry.add(k) == b'=' {
            return entry.add(n + 1);
        }
        i += 1;
    }
    core::ptr::null()
}

/// One step of a search through `path` (directories between colons): writes the directory at `offset`, a
/// slash and `name` into `to`. An empty directory is the working directory. Returns the offset of the next
/// one, or -1 if this was the last. Where there is no room, `to` becomes the empty string.
pub unsafe fn path_candidate(
    path: *const u8,
    offset: usize,
    name: *const u8,
    to: *mut u8,
    capacity: usize,
) -> isize {
    let mut n = 0;
    while *path.add(offset + n) != 0 && *path.add(offset + n) != b':' {
        n += 1;
    }
    *to = 0;
    if n + 2 <= capacity {
        let mut i = 0;
        while i < n {
            *to.add(i) = *path.add(offset + i);
            i += 1;
        }
        let mut len = n;
        if n > 0 {
            *to.add(n) = b'/';
            len += 1;
        }
        *to.add(len) = 0;
        if append(to, len as isize, capacity, name) < 0 {
            *to = 0;
        }
    }
    if *path.add(offset + n) == 0 {
        -1
    } else {
        (offset + n + 1) as isize
    }
}

/// The end of the string that starts at `at` in a payload of `len` bytes: the offset after its NUL, or 0 if
/// the payload ends before one.
pub unsafe fn string_end(payload: *const u8, at: usize, len: usize) -> usize {
    let mut i = at;
    while i < len {
        if *payload.add(i) == 0 {
            return i + 1;
        }
        i += 1;
    }
    0
}

pub unsafe fn get_u16(p: *const u8) -> u16 {
    *p as u16 | (*p.add(1) as u16) << 8
}

pub unsafe fn get_u32(p: *const u8) -> u32 {
    get_u16(p) as u32 | (get_u16(p.add(2)) as u32) << 16
}

pub unsafe fn get_u64(p: *const u8) -> u64 {
    get_u32(p) as u64 | (get_u32(p.add(4)) as u64) << 32
}

pub unsafe fn put_u16(p: *mut u8, value: u16) {
    *p = value as u8;
    *p.add(1) = (value >> 8) as u8;
}

pub unsafe fn put_u32(p: *mut u8, value: u32) {
    put_u16(p, value as u16);
    put_u16(p.add(2), (value >> 16) as u16);
}

pub unsafe fn put_u64(p: *mut u8, value: u64) {
    put_u32(p, value as u32);
    put_u32(p.add(4), (value >> 32) as u32);
}

/// Reads 32 hexadecimal digits, hyphens between them ignored, as 16 bytes; what is missing becomes zero.
pub unsafe fn parse_uuid(s: *const u8, to: *mut u8) {
    let mut nibbles = 0;
    let mut i = 0;
    while nibbles < 32 {
        let c = *s.add(i);
        let mut value = 0;
        if c >= b'0' && c <= b'9' {
            value = c - b'0';
        } else if c >= b'a' && c <= b'f' {
            value = c - b'a' + 10;
        }
        if c != b'-' {
            let byte = to.add(nibbles / 2);
            *byte = if nibbles % 2 == 0 {
                value << 4
            } else {
                *byte | value
            };
            nibbles += 1;
        }
        if c != 0 {
            i += 1;
        }
    }
}
