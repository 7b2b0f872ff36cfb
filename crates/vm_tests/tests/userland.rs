//! A Debian userland checks itself in a guest, and its results are compared with this machine's own.
//!
//! What a processor gets wrong shows here: digests, arithmetic, floating point, compilers, code made at run time.

use std::process::Command as HostCommand;
use std::sync::LazyLock;

use crumblecracker::{Instance, InstanceOptions, Timeline};
use vm_tests::{Host, TOOLS, bash};

/// One guest for all these tests.
static GUEST: LazyLock<Instance> = LazyLock::new(|| {
    let options = InstanceOptions {
        memory_mib: 1024,
        timeline: TIMELINE.clone(),
        ..InstanceOptions::default()
    };
    Host::open_with(TOOLS)
        .and_then(|host| Ok(host.start(&options)?))
        .expect("a guest")
});

/// When what happened in it.
static TIMELINE: LazyLock<Timeline> = LazyLock::new(Timeline::default);

/// What a line of bash prints in the guest.
fn guest(line: &str) -> String {
    let output = bash(&GUEST, line).unwrap();
    assert_eq!(output.status, 0, "{line}: {output:?}");
    output.stdout
}

/// What it prints here.
fn here(line: &str) -> String {
    let output = HostCommand::new("bash").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn same(line: &str) {
    assert_eq!(guest(line), here(line), "{line}");
}

/// One MiB that are the same everywhere.
const BYTES: &str = "perl -e '$x = 1; for (1..262144) { $x = ($x * 1103515245 + 12345) & 0xffffffff; print pack(\"V\", $x) }'";

#[test]
fn digests_equal_the_hosts() {
    for digest in ["md5", "sha1", "sha256", "sha512", "sha3-256", "blake2b512"] {
        same(&format!("{BYTES} | openssl dgst -{digest} | sed 's/.*= //'"));
    }
    for sum in ["md5sum", "sha256sum", "sha512sum", "cksum"] {
        same(&format!("{BYTES} | {sum}"));
    }
}

#[test]
fn ciphers_equal_the_hosts() {
    for cipher in ["aes-256-ctr", "aes-128-cbc", "chacha20", "camellia-256-cbc"] {
        same(&format!(
            "{BYTES} | openssl enc -{cipher} -K {key} -iv {iv} | md5sum",
            key = if cipher == "aes-128-cbc" {
                "0123456789abcdef".repeat(2)
            } else {
                "0123456789abcdef".repeat(4)
            },
            iv = "00112233445566778899aabbccddeeff",
        ));
    }
}

#[test]
fn compressors_give_back_what_they_took() {
    let line = format!(
        "cd /tmp; {BYTES} >plain; cat plain plain /usr/bin/perl >all; gzip -9 <all | gzip -dc | cmp - all && \
         xz -1 <all | xz -dc | cmp - all && gzip -9n <all | md5sum"
    );
    assert_eq!(guest(&line).len(), 36);
    same(&format!(
        "{BYTES} | head -c 500000 | od -An -tx1 | gzip -9n | gzip -dc | md5sum"
    ));
}

#[test]
fn shell_and_perl_arithmetic_equals_the_hosts() {
    same(
        "for i in 1 7 -9 123456789 9223372036854775807; do for j in 3 -4 17; do \
          echo $((i+j)) $((i*j)) $((i/j)) $((i%j)) $((i<<3)) $((i>>5)) $((i&j)) $((i^j)) $((i>j)); done; done",
    );
    same(
        "perl -e 'for my $x (0.1, 2, 1e300, -3.7, 1e-310) { for my $y (3, 0.7, -2) { \
          printf \"%.17g %.17g %.17g %.17g %.14g\\n\", $x+$y, $x*$y, $x/$y, $x-$y, abs($x)**$y } }'",
    );
    same(
        "perl -e 'for my $x (0.1, 1, 2.5, 30, -7) { printf \"%.14g %.14g %.14g %.14g %d\\n\", sin $x, cos $x, exp $x, sqrt abs $x, $x }'",
    );
    same("perl -e 'use integer; my $h = 5381; $h = ($h * 33) ^ $_ for 1..100000; print \"$h\\n\"'");
    same(
        "perl -e 'my $r = 0; for my $i (1..2000) { $r += eval \"$i * 2 + length(q(x) x $i)\" } print \"$r\\n\"'",
    );
    same("seq 1 20000 | sort -R --random-source=/bin/true 2>/dev/null | sort -n | md5sum");
}

#[test]
fn python_passes_its_own_tests() {
    for module in ["test_math", "test_float", "test_struct", "test_zlib", "test_json"] {
        let output = bash(
            &GUEST,
            &format!("cd /tmp && python3.13 -m test {module} 2>&1 | tail -40"),
        )
        .unwrap();
        assert!(
            output.stdout.contains("Result: SUCCESS") || output.stdout.contains("Tests result: SUCCESS"),
            "{module}: {}",
            output.stdout
        );
    }
}

/// A program with integers, doubles, long doubles, vectors and recursion.
const PROGRAM: &str = r#"
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
static uint64_t fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
static int order(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }
int main(void) {
    static double v[20000]; static float f[4096]; uint64_t x = 88172645463325252ull; long double l = 1;
    for (int i = 0; i < 20000; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; v[i] = (double)(int64_t)x / 1e18; }
    qsort(v, 20000, sizeof *v, order);
    double sum = 0; for (int i = 0; i < 20000; i++) sum += v[i] * (i % 7) + sqrt(fabs(v[i]));
    for (int i = 0; i < 4096; i++) f[i] = (float)i * 0.25f + (float)(x >> (i & 31) & 255);
    float fs = 0; for (int i = 0; i < 4096; i++) fs += f[i] * f[4095 - i];
    for (int i = 1; i < 60; i++) l = l * i / (i + 0.5L) + 1 / (long double)i;
    printf("%llu %.17g %.9g %.20Lg %d %llu\n", (unsigned long long)fib(24), sum, fs, l, (int)(sum * 1000), (unsigned long long)(x % 1000003));
    return 0;
}
"#;

#[test]
fn compiled_program_runs_as_on_the_host() {
    for options in [
        "-O0",
        "-O2",
        "-O3 -march=x86-64-v2",
        "-O3 -march=x86-64-v3 -ffp-contract=off",
    ] {
        let line = format!(
            "d=$(mktemp -d) && cd $d && cat >p.c <<'END'\n{PROGRAM}\nEND\ngcc {options} p.c -o p -lm && ./p"
        );
        same(&line);
    }
}

/// Makes functions at run time, calls them, changes them in place and calls them again.
const JIT: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
int main(void) {
    unsigned char *code = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned long sum = 0;
    for (int round = 0; round < 3000; round++) {
        unsigned char *at = code + round % 50 * 64;
        at[0] = 0x8d; at[1] = 0x87; int add = round * 7; memcpy(at + 2, &add, 4); at[6] = 0xc3; /* lea eax, [rdi + add]; ret */
        for (int call = 0; call < 40; call++) sum += ((int (*)(int))at)(call);
        at[2] ^= 1; sum += ((int (*)(int))at)(round);
    }
    printf("%lu\n", sum);
    return 0;
}
"#;

#[test]
fn code_made_at_run_time_is_the_code_that_runs() {
    let line = format!("d=$(mktemp -d) && cd $d && cat >j.c <<'END'\n{JIT}\nEND\ngcc -O2 j.c -o j && ./j");
    same(&line);
}

/// Writes a line to the timing port.
const MARK: &str = r#"
#include <sys/io.h>
int main(void) {
    if (ioperm(0x6c0, 1, 1)) return 1;
    for (const char *at = "half of it is done\n"; *at; at++) outb(*at, 0x6c0);
    return 0;
}
"#;

#[test]
fn program_marks_the_timeline_through_its_port() {
    let line = format!("d=$(mktemp -d) && cd $d && cat >m.c <<'END'\n{MARK}\nEND\ngcc m.c -o m && ./m");

    guest(&line);

    let moments = TIMELINE.moments();
    let mark = moments
        .iter()
        .position(|moment| moment.what == "guest: half of it is done");
    let command = moments.iter().position(|moment| moment.what == "command runs");
    assert!(mark.is_some() && command < mark, "{moments:?}");
}
