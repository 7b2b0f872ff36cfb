// What makes one guest differ from another: version, hostname, clock, entropy; and the loopback
// interface, which all have.

use crate::HOSTED;
use crate::kernel::*;
use crate::log;
use crate::memory::memcpy;
use crate::protocol;
use crate::syscall::*;
use crate::text;
use crate::wire::*;

/// struct rand_pool_info: entropy count in bits, size in bytes, then the bytes.
#[repr(C)]
struct RandPoolInfo {
    bits: i32,
    bytes: i32,
    data: [u8; MAX_ENTROPY],
}

/// struct ifreq, of which flags is the only field used here.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Serves Configure.
pub unsafe fn configure(id: u32, payload: *const u8, len: usize) {
    let hostname_end = text::string_end(payload, CONFIGURE_FIXED, len);
    if len < CONFIGURE_FIXED || hostname_end == 0 {
        protocol::fail_request(id, EPROTO);
        return;
    }
    let entropy_len = text::get_u32(payload.add(CONFIGURE_ENTROPY_LEN)) as usize;
    let hostname_len = hostname_end - CONFIGURE_FIXED - 1;
    if entropy_len != len - hostname_end || entropy_len > MAX_ENTROPY || hostname_len > MAX_HOSTNAME {
        protocol::fail_request(id, EPROTO);
        return;
    }
    let version = text::get_u16(payload.add(CONFIGURE_VERSION));
    if version < VERSION_MIN || version > VERSION_MAX {
        protocol::fail(
            id,
            -EPROTONOSUPPORT,
            STAGE_VERSION,
            b"control protocol version\0" as *const u8,
        );
        return;
    }
    if HOSTED {
        protocol::done(id);
        return;
    }
    let mut result = 0;
    let mut what = b"hostname\0" as *const u8;
    if hostname_len > 0 {
        let hostname = payload.add(CONFIGURE_FIXED) as usize;
        result = syscall(SETHOSTNAME, hostname, hostname_len, 0, 0, 0);
    }
    let clock = text::get_u64(payload.add(CONFIGURE_CLOCK));
    if result >= 0 && clock != 0 {
        what = b"clock\0" as *const u8;
        result = set_clock(clock);
    }
    if result >= 0 && entropy_len > 0 {
        what = b"entropy\0" as *const u8;
        result = add_entropy(payload.add(hostname_end), entropy_len);
    }
    if result < 0 {
        protocol::fail(id, result, STAGE_CONFIGURE, what);
    } else {
        protocol::done(id);
    }
}

/// Mixes the seed in, counts it, and makes the generator start anew from it at once: two guests restored
/// from one snapshot must not draw the same numbers.
unsafe fn add_entropy(seed: *const u8, len: usize) -> isize {
    const RNDADDENTROPY: usize = 0x4008_5203;
    const RNDRESEEDCRNG: usize = 0x5207;
    let device = open(b"/dev/urandom\0" as *const u8, O_WRONLY);
    if device < 0 {
        return device;
    }
    let mut info = RandPoolInfo {
        bits: len as i32 * 8,
        bytes: len as i32,
        data: [0; MAX_ENTROPY],
    };
    memcpy(&raw mut info.data as *mut u8, seed, len);
    let mut result = ioctl(device as i32, RNDADDENTROPY, &raw const info as usize);
    if result >= 0 {
        result = ioctl(device as i32, RNDRESEEDCRNG, 0);
        // While the generator has not started yet the kernel says ENODATA; it starts from the seed then.
        const ENODATA: isize = 61;
        if result == -ENODATA {
            result = 0;
        }
    }
    close(device as i32);
    result
}

/// Brings up the loopback interface; why that cannot be is noted, no more.
pub unsafe fn raise_loopback() {
    const AF_INET: usize = 2;
    const SOCK_DGRAM: usize = 2;
    let socket = syscall(SOCKET, AF_INET, SOCK_DGRAM | O_CLOEXEC, 0, 0, 0);
    let mut result = socket;
    if socket >= 0 {
        result = set_loopback_up(socket as i32);
        close(socket as i32);
    }
    if result < 0 {
        log::note(b"cannot bring up the loopback interface\0" as *const u8, result);
    }
}

unsafe fn set_loopback_up(socket: i32) -> isize {
    const SIOCGIFFLAGS: usize = 0x8913;
    const SIOCSIFFLAGS: usize = 0x8914;
    const IFF_UP: i16 = 1;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: 0,
        rest: [0; 22],
    };
    request.name[0] = b'l';
    request.name[1] = b'o';
    let mut result = ioctl(socket, SIOCGIFFLAGS, &raw mut request as usize);
    if result >= 0 && request.flags & IFF_UP == 0 {
        request.flags |= IFF_UP;
        result = ioctl(socket, SIOCSIFFLAGS, &raw const request as usize);
    }
    result
}
