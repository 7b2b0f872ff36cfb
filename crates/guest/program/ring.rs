// A ring of bytes over storage the caller names; the length of the storage is a constant of the program.

/// Where the bytes of a ring lie in its storage.
pub struct Ring {
    pub start: usize,
    pub len: usize,
}

/// Bytes that can be read at once, without going round.
pub unsafe fn readable(ring: *const Ring, capacity: usize) -> usize {
    let to_end = capacity - (*ring).start;
    if (*ring).len < to_end { (*ring).len } else { to_end }
}

/// Forgets the first `n` bytes, of which there are as many.
pub unsafe fn consume(ring: *mut Ring, capacity: usize, n: usize) {
    (*ring).len -= n;
    (*ring).start = if (*ring).len == 0 {
        0
    } else {
        ((*ring).start + n) % capacity
    };
}

/// Appends `n` bytes; false, and nothing done, where there is no room.
pub unsafe fn push(ring: *mut Ring, storage: *mut u8, capacity: usize, from: *const u8, n: usize) -> bool {
    if n > capacity - (*ring).len {
        return false;
    }
    let mut at = ((*ring).start + (*ring).len) % capacity;
    let mut i = 0;
    while i < n {
        *storage.add(at) = *from.add(i);
        at += 1;
        if at == capacity {
            at = 0;
        }
        i += 1;
    }
    (*ring).len += n;
    true
}
