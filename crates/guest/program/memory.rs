// Bytes of memory, and the four functions compilers call by name.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let mut i = 0;
    while i < len {
        *to.add(i) = *from.add(i);
        i += 1;
    }
    to
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize) < from as usize {
        return memcpy(to, from, len);
    }
    let mut i = len;
    while i > 0 {
        i -= 1;
        *to.add(i) = *from.add(i);
    }
    to
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let mut i = 0;
    while i < len {
        *to.add(i) = value as u8;
        i += 1;
    }
    to
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut i = 0;
    while i < len {
        if *a.add(i) != *b.add(i) {
            return *a.add(i) as i32 - *b.add(i) as i32;
        }
        i += 1;
    }
    0
}
