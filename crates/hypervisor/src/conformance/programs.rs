//! The guest programs of the suite, as a table: machine code on the left, its assembly on the right.
//!
//! A program ends by a store to [`super::guest::DONE_PORT`] (0xf4) unless its case ends it in another way.

/// The bytes of a listing: on each line hexadecimal bytes, `|`, and what they mean.
///
/// # Panics
/// On a line that is no listing. The listings are constants, and a test reads every one of them.
pub(super) fn assemble(listing: &str) -> Vec<u8> {
    let words = listing.lines().flat_map(|line| {
        let (code, _) = line
            .split_once('|')
            .expect("a line of a listing has code and assembly");
        code.split_whitespace()
    });
    words
        .map(|word| u8::from_str_radix(word, 16).expect("code is hexadecimal"))
        .collect()
}

/// Port accesses of every width; 16-bit code.
pub(super) const REAL_PORTS: &str = "\
    b0 12                          | mov al,0x12
    e6 10                          | out 0x10,al
    b8 56 34                       | mov ax,0x3456
    e7 10                          | out 0x10,ax
    66 b8 de bc 9a 78              | mov eax,0x789abcde
    66 e7 10                       | out 0x10,eax
    ba 34 12                       | mov dx,0x1234
    ec                             | in al,dx
    e6 10                          | out 0x10,al
    ed                             | in ax,dx
    e7 10                          | out 0x10,ax
    66 ed                          | in eax,dx
    66 e7 10                       | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Port accesses of every width; the same bytes in 32-bit and in 64-bit code.
pub(super) const PORTS: &str = "\
    b0 12                          | mov al,0x12
    e6 10                          | out 0x10,al
    66 b8 56 34                    | mov ax,0x3456
    66 e7 10                       | out 0x10,ax
    b8 de bc 9a 78                 | mov eax,0x789abcde
    e7 10                          | out 0x10,eax
    66 ba 34 12                    | mov dx,0x1234
    ec                             | in al,dx
    e6 10                          | out 0x10,al
    66 ed                          | in ax,dx
    66 e7 10                       | out 0x10,ax
    ed                             | in eax,dx
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Memory-mapped accesses of every width that 32-bit code has.
pub(super) const PROTECTED_MMIO: &str = "\
    bb 00 00 00 d0                 | mov ebx,0xd0000000
    c6 03 12                       | mov BYTE PTR [ebx],0x12
    66 c7 43 02 56 34              | mov WORD PTR [ebx+0x2],0x3456
    c7 43 04 de bc 9a 78           | mov DWORD PTR [ebx+0x4],0x789abcde
    8a 43 08                       | mov al,BYTE PTR [ebx+0x8]
    88 43 10                       | mov BYTE PTR [ebx+0x10],al
    66 8b 43 08                    | mov ax,WORD PTR [ebx+0x8]
    66 89 43 10                    | mov WORD PTR [ebx+0x10],ax
    8b 43 08                       | mov eax,DWORD PTR [ebx+0x8]
    89 43 10                       | mov DWORD PTR [ebx+0x10],eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Memory-mapped accesses of every width.
pub(super) const LONG_MMIO: &str = "\
    bb 00 00 00 d0                 | mov ebx,0xd0000000
    c6 03 12                       | mov BYTE PTR [rbx],0x12
    66 c7 43 02 56 34              | mov WORD PTR [rbx+0x2],0x3456
    c7 43 04 de bc 9a 78           | mov DWORD PTR [rbx+0x4],0x789abcde
    8a 43 08                       | mov al,BYTE PTR [rbx+0x8]
    88 43 10                       | mov BYTE PTR [rbx+0x10],al
    66 8b 43 08                    | mov ax,WORD PTR [rbx+0x8]
    66 89 43 10                    | mov WORD PTR [rbx+0x10],ax
    8b 43 08                       | mov eax,DWORD PTR [rbx+0x8]
    89 43 10                       | mov DWORD PTR [rbx+0x10],eax
    48 8b 43 08                    | mov rax,QWORD PTR [rbx+0x8]
    48 89 43 18                    | mov QWORD PTR [rbx+0x18],rax
    0f b6 4b 21                    | movzx ecx,BYTE PTR [rbx+0x21]
    89 4b 20                       | mov DWORD PTR [rbx+0x20],ecx
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// One instruction that reads and writes a device register, plain and locked.
pub(super) const MMIO_READ_MODIFY_WRITE: &str = "\
    bb 00 00 00 d0                 | mov ebx,0xd0000000
    81 0b 80 00 00 00              | or DWORD PTR [rbx],0x80
    b8 44 33 22 11                 | mov eax,0x11223344
    87 43 04                       | xchg DWORD PTR [rbx+0x4],eax
    89 43 08                       | mov DWORD PTR [rbx+0x8],eax
    8b 43 0c                       | mov eax,DWORD PTR [rbx+0xc]
    b9 88 77 66 55                 | mov ecx,0x55667788
    f0 0f b1 4b 0c                 | lock cmpxchg DWORD PTR [rbx+0xc],ecx
    0f 94 c0                       | sete al
    e6 10                          | out 0x10,al
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// A store through a segment: its base is sixteen times the selector.
pub(super) const REAL_SEGMENTS: &str = "\
    b8 00 30                       | mov ax,0x3000
    8e d8                          | mov ds,ax
    c7 06 10 00 ef be              | mov WORD PTR ds:0x10,0xbeef
    b8 01 30                       | mov ax,0x3001
    8e c0                          | mov es,ax
    26 a1 00 00                    | mov ax,es:0x0
    e7 10                          | out 0x10,ax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// From real through protected into long mode; tables are prepared at 0x1000 and 0x9000.
pub(super) const MODE_SWITCH: &str = "\
    b0 16                          | mov al,0x16
    e6 10                          | out 0x10,al
    2e 66 0f 01 16 1b 00           | lgdtd cs:0x1b
    0f 20 c0                       | mov eax,cr0
    0c 01                          | or al,0x1
    0f 22 c0                       | mov cr0,eax
    66 ea 21 00 02 00 18 00        | jmp 0x18:0x20021
    27 00 00 10 00 00              | GDTR: limit 0x27, base 0x1000
    66 b8 10 00                    | mov ax,0x10
    8e d8                          | mov ds,eax
    8e d0                          | mov ss,eax
    b0 32                          | mov al,0x32
    e6 10                          | out 0x10,al
    0f 20 e0                       | mov eax,cr4
    83 c8 20                       | or eax,0x20
    0f 22 e0                       | mov cr4,eax
    b8 00 90 00 00                 | mov eax,0x9000
    0f 22 d8                       | mov cr3,eax
    b9 80 00 00 c0                 | mov ecx,0xc0000080
    0f 32                          | rdmsr
    0d 00 01 00 00                 | or eax,0x100
    0f 30                          | wrmsr
    0f 20 c0                       | mov eax,cr0
    0d 00 00 00 80                 | or eax,0x80000000
    0f 22 c0                       | mov cr0,eax
    ea 5e 00 02 00 08 00           | jmp 0x8:0x2005e
    b0 64                          | mov al,0x64
    e6 10                          | out 0x10,al
    48 c7 c3 00 00 03 80           | mov rbx,0xffffffff80030000
    c7 03 ce fa ed fe              | mov DWORD PTR [rbx],0xfeedface
    8b 04 25 00 00 03 00           | mov eax,DWORD PTR ds:0x30000
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// String output of every width, then string input written back out.
pub(super) const STRING_PORTS: &str = "\
    be 00 00 03 00                 | mov esi,0x30000
    b9 03 00 00 00                 | mov ecx,0x3
    66 ba 20 00                    | mov dx,0x20
    fc                             | cld
    f3 6e                          | rep outs dx,BYTE PTR ds:[rsi]
    b9 02 00 00 00                 | mov ecx,0x2
    66 f3 6f                       | rep outs dx,WORD PTR ds:[rsi]
    b9 02 00 00 00                 | mov ecx,0x2
    f3 6f                          | rep outs dx,DWORD PTR ds:[rsi]
    bf 00 01 03 00                 | mov edi,0x30100
    b9 02 00 00 00                 | mov ecx,0x2
    66 ba 22 00                    | mov dx,0x22
    f3 6c                          | rep ins BYTE PTR es:[rdi],dx
    f3 6c                          | rep ins BYTE PTR es:[rdi],dx
    b9 02 00 00 00                 | mov ecx,0x2
    66 f3 6d                       | rep ins WORD PTR es:[rdi],dx
    b9 02 00 00 00                 | mov ecx,0x2
    f3 6d                          | rep ins DWORD PTR es:[rdi],dx
    be 00 01 03 00                 | mov esi,0x30100
    b9 0e 00 00 00                 | mov ecx,0xe
    66 ba 24 00                    | mov dx,0x24
    f3 6e                          | rep outs dx,BYTE PTR ds:[rsi]
    fd                             | std
    be 02 00 03 00                 | mov esi,0x30002
    b9 03 00 00 00                 | mov ecx,0x3
    f3 6e                          | rep outs dx,BYTE PTR ds:[rsi]
    fc                             | cld
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// String moves between RAM and a device.
pub(super) const STRING_MMIO: &str = "\
    be 40 00 00 d0                 | mov esi,0xd0000040
    bf 00 01 03 00                 | mov edi,0x30100
    b9 03 00 00 00                 | mov ecx,0x3
    f3 a4                          | rep movs BYTE PTR es:[rdi],BYTE PTR ds:[rsi]
    b9 02 00 00 00                 | mov ecx,0x2
    be 00 00 03 00                 | mov esi,0x30000
    bf 80 00 00 d0                 | mov edi,0xd0000080
    f3 a5                          | rep movs DWORD PTR es:[rdi],DWORD PTR ds:[rsi]
    b8 04 03 02 01                 | mov eax,0x1020304
    b9 02 00 00 00                 | mov ecx,0x2
    f3 ab                          | rep stos DWORD PTR es:[rdi],eax
    8b 04 25 00 01 03 00           | mov eax,DWORD PTR ds:0x30100
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Accesses half in the last bytes of RAM and half beyond.
pub(super) const STRADDLE: &str = "\
    bb 00 00 02 01                 | mov ebx,0x1020000
    48 b8 88 77 66 55 44 33 22 11  | movabs rax,0x1122334455667788
    48 89 43 fc                    | mov QWORD PTR [rbx-0x4],rax
    8b 43 fc                       | mov eax,DWORD PTR [rbx-0x4]
    e7 10                          | out 0x10,eax
    48 8b 43 fc                    | mov rax,QWORD PTR [rbx-0x4]
    48 c1 e8 20                    | shr rax,0x20
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Locked operations on the last bytes of RAM, next to a device.
pub(super) const LOCKED_NEIGHBOURS: &str = "\
    bb 00 00 02 01                 | mov ebx,0x1020000
    48 c7 43 f8 05 00 00 00        | mov QWORD PTR [rbx-0x8],0x5
    b8 05 00 00 00                 | mov eax,0x5
    48 b9 08 07 06 05 04 03 02 01  | movabs rcx,0x102030405060708
    f0 48 0f b1 4b f8              | lock cmpxchg QWORD PTR [rbx-0x8],rcx
    0f 94 c0                       | sete al
    e6 10                          | out 0x10,al
    f0 83 43 fc 01                 | lock add DWORD PTR [rbx-0x4],0x1
    b8 99 00 00 00                 | mov eax,0x99
    f0 0f c0 43 ff                 | lock xadd BYTE PTR [rbx-0x1],al
    e6 10                          | out 0x10,al
    8b 43 f8                       | mov eax,DWORD PTR [rbx-0x8]
    e7 10                          | out 0x10,eax
    8b 43 fc                       | mov eax,DWORD PTR [rbx-0x4]
    e7 10                          | out 0x10,eax
    8b 03                          | mov eax,DWORD PTR [rbx]
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Enables its local APIC, says so at port 0x11, and sleeps until an interrupt has been handled.
pub(super) const INTERRUPT: &str = "\
    bb 00 00 e0 fe                 | mov ebx,0xfee00000
    c7 83 f0 00 00 00 ff 01 00 00  | mov DWORD PTR [rbx+0xf0],0x1ff
    b0 11                          | mov al,0x11
    e6 11                          | out 0x11,al
    fb                             | sti
    f4                             | hlt
    fa                             | cli
    b0 12                          | mov al,0x12
    e6 12                          | out 0x12,al
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Reports an interrupt at port 0x40, ends it and goes back.
pub(super) const INTERRUPT_HANDLER: &str = "\
    50                             | push rax
    53                             | push rbx
    b0 40                          | mov al,0x40
    e6 40                          | out 0x40,al
    bb 00 00 e0 fe                 | mov ebx,0xfee00000
    c7 83 b0 00 00 00 00 00 00 00  | mov DWORD PTR [rbx+0xb0],0x0
    5b                             | pop rbx
    58                             | pop rax
    48 cf                          | iretq";

/// Sleeps until the local APIC's one-shot timer fires.
pub(super) const TIMER: &str = "\
    bb 00 00 e0 fe                 | mov ebx,0xfee00000
    c7 83 f0 00 00 00 ff 01 00 00  | mov DWORD PTR [rbx+0xf0],0x1ff
    c7 83 e0 03 00 00 0b 00 00 00  | mov DWORD PTR [rbx+0x3e0],0xb
    c7 83 20 03 00 00 40 00 00 00  | mov DWORD PTR [rbx+0x320],0x40
    c7 83 80 03 00 00 00 10 00 00  | mov DWORD PTR [rbx+0x380],0x1000
    fb                             | sti
    f4                             | hlt
    fa                             | cli
    8b 83 90 03 00 00              | mov eax,DWORD PTR [rbx+0x390]
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Starts processor 1 at 0x21000 by INIT and start-up interrupts, and waits for its word in RAM.
pub(super) const START_SECOND: &str = "\
    bb 00 00 e0 fe                 | mov ebx,0xfee00000
    c7 83 f0 00 00 00 ff 01 00 00  | mov DWORD PTR [rbx+0xf0],0x1ff
    c7 83 10 03 00 00 00 00 00 01  | mov DWORD PTR [rbx+0x310],0x1000000
    c7 83 00 03 00 00 00 45 00 00  | mov DWORD PTR [rbx+0x300],0x4500
    c7 83 10 03 00 00 00 00 00 01  | mov DWORD PTR [rbx+0x310],0x1000000
    c7 83 00 03 00 00 21 46 00 00  | mov DWORD PTR [rbx+0x300],0x4621
    be 00 00 03 00                 | mov esi,0x30000
    f3 90                          | pause
    66 81 3e 34 12                 | cmp WORD PTR [rsi],0x1234
    75 f7                          | jne 0x3c
    b0 12                          | mov al,0x12
    e6 12                          | out 0x12,al
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// What processor 1 does: writes its word to 0x30000 and sleeps for good.
pub(super) const SECOND: &str = "\
    b8 00 30                       | mov ax,0x3000
    8e d8                          | mov ds,ax
    c7 06 00 00 34 12              | mov WORD PTR ds:0x0,0x1234
    fa                             | cli
    f4                             | hlt
    eb fd                          | jmp 0xc";

/// Raises #DE.
pub(super) const DIVIDE_BY_ZERO: &str = "\
    31 c9                          | xor ecx,ecx
    f7 f1                          | div ecx";

/// Raises #UD.
pub(super) const UNDEFINED: &str = "\
    0f 0b                          | ud2";

/// Raises #BP.
pub(super) const BREAKPOINT: &str = "\
    cc                             | int3";

/// Raises #GP with a selector beyond the descriptor table.
pub(super) const BAD_SELECTOR: &str = "\
    b8 00 01 00 00                 | mov eax,0x100
    8e d8                          | mov ds,eax";

/// Raises #PF: a load where no page is.
pub(super) const READ_ABSENT: &str = "\
    b8 23 01 00 40                 | mov eax,0x40000123
    8b 00                          | mov eax,DWORD PTR [rax]";

/// Raises #PF: a store where no page is.
pub(super) const WRITE_ABSENT: &str = "\
    b8 23 01 00 40                 | mov eax,0x40000123
    89 00                          | mov DWORD PTR [rax],eax";

/// Raises #PF: a store to a read-only page.
pub(super) const WRITE_READ_ONLY: &str = "\
    b8 56 04 20 40                 | mov eax,0x40200456
    89 00                          | mov DWORD PTR [rax],eax";

/// Raises #PF: a jump to where no page is.
pub(super) const FETCH_ABSENT: &str = "\
    b8 23 01 00 40                 | mov eax,0x40000123
    ff e0                          | jmp rax";

/// Where every exception ends up: vector, error code and CR2 go to ports 0xe0 to 0xe3.
pub(super) const EXCEPTION_REPORT: &str = "\
    58                             | pop rax
    e6 e0                          | out 0xe0,al
    58                             | pop rax
    e7 e1                          | out 0xe1,eax
    0f 20 d0                       | mov rax,cr2
    e7 e2                          | out 0xe2,eax
    48 c1 e8 20                    | shr rax,0x20
    e7 e3                          | out 0xe3,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Shows one leaf at port 0x10 and its own APIC id.
pub(super) const CPUID: &str = "\
    b8 02 00 00 80                 | mov eax,0x80000002
    31 c9                          | xor ecx,ecx
    0f a2                          | cpuid
    e7 10                          | out 0x10,eax
    89 d8                          | mov eax,ebx
    e7 10                          | out 0x10,eax
    89 c8                          | mov eax,ecx
    e7 10                          | out 0x10,eax
    89 d0                          | mov eax,edx
    e7 10                          | out 0x10,eax
    b8 01 00 00 00                 | mov eax,0x1
    31 c9                          | xor ecx,ecx
    0f a2                          | cpuid
    89 d8                          | mov eax,ebx
    c1 e8 18                       | shr eax,0x18
    e6 10                          | out 0x10,al
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Writes two registers and reads them back.
pub(super) const MSR: &str = "\
    b9 82 00 00 c0                 | mov ecx,0xc0000082
    b8 67 45 23 81                 | mov eax,0x81234567
    ba ff ff ff ff                 | mov edx,0xffffffff
    0f 30                          | wrmsr
    31 c0                          | xor eax,eax
    31 d2                          | xor edx,edx
    0f 32                          | rdmsr
    e7 10                          | out 0x10,eax
    89 d0                          | mov eax,edx
    e7 10                          | out 0x10,eax
    b9 74 01 00 00                 | mov ecx,0x174
    b8 33 00 00 00                 | mov eax,0x33
    31 d2                          | xor edx,edx
    0f 30                          | wrmsr
    31 c0                          | xor eax,eax
    0f 32                          | rdmsr
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Raises #GP: reads a register that no processor has.
pub(super) const MSR_UNKNOWN: &str = "\
    b9 78 56 34 12                 | mov ecx,0x12345678
    0f 32                          | rdmsr";

/// Runs for ever.
pub(super) const SPIN: &str = "\
    eb fe                          | jmp 0x0";

/// An exception without any descriptor table to find its handler in.
pub(super) const TRIPLE_FAULT: &str = "\
    b8 00 00 03 00                 | mov eax,0x30000
    48 c7 00 00 00 00 00           | mov QWORD PTR [rax],0x0
    48 c7 40 08 00 00 00 00        | mov QWORD PTR [rax+0x8],0x0
    0f 01 18                       | lidt [rax]
    0f 0b                          | ud2";

/// Writes into an instruction and jumps to it (Intel SDM vol. 3, 9.1.3, option 1), three times.
pub(super) const SELF_MODIFYING: &str = "\
    bb 03 00 00 00                 | mov ebx,0x3
    88 1d 03 00 00 00              | mov BYTE PTR [rip+0x3],bl # 0xe
    eb 00                          | jmp 0xd
    b0 00                          | mov al,0x0
    e6 10                          | out 0x10,al
    ff cb                          | dec ebx
    75 f0                          | jne 0x5
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Stores into two pages.
pub(super) const DIRTY: &str = "\
    b8 00 00 03 00                 | mov eax,0x30000
    c7 00 01 00 00 00              | mov DWORD PTR [rax],0x1
    c7 80 f8 2f 00 00 01 00 00 00  | mov DWORD PTR [rax+0x2ff8],0x1
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Rings by any value, by a matching value, and not by another value.
pub(super) const DOORBELLS: &str = "\
    bb 00 00 00 d0                 | mov ebx,0xd0000000
    c7 03 07 00 00 00              | mov DWORD PTR [rbx],0x7
    66 c7 43 10 05 00              | mov WORD PTR [rbx+0x10],0x5
    66 c7 43 10 06 00              | mov WORD PTR [rbx+0x10],0x6
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Shows a general register and an SSE register.
pub(super) const SHOW_STATE: &str = "\
    44 89 f8                       | mov eax,r15d
    e7 10                          | out 0x10,eax
    66 0f 7e d8                    | movd eax,xmm3
    e7 10                          | out 0x10,eax
    0f 10 e3                       | movups xmm4,xmm3
    66 0f fe e3                    | paddd xmm4,xmm3
    66 0f 7e e0                    | movd eax,xmm4
    e7 10                          | out 0x10,eax
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

/// Counts ECX down to zero, then reports.
pub(super) const COUNTED_LOOP: &str = "\
    ff c9                          | dec ecx
    75 fc                          | jne 0x0
    b0 00                          | mov al,0x0
    e6 f4                          | out 0xf4,al";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assemble_reads_code_and_leaves_assembly() {
        assert_eq!(
            assemble("b0 12 | mov al,0x12\n e6 10 | out 0x10,al"),
            [0xb0, 0x12, 0xe6, 0x10]
        );
    }

    #[test]
    fn every_listing_is_code() {
        let listings = [
            REAL_PORTS,
            PORTS,
            PROTECTED_MMIO,
            LONG_MMIO,
            MMIO_READ_MODIFY_WRITE,
            REAL_SEGMENTS,
            MODE_SWITCH,
            STRING_PORTS,
            STRING_MMIO,
            STRADDLE,
            LOCKED_NEIGHBOURS,
            INTERRUPT,
            INTERRUPT_HANDLER,
            TIMER,
            START_SECOND,
            SECOND,
            DIVIDE_BY_ZERO,
            UNDEFINED,
            BREAKPOINT,
            BAD_SELECTOR,
            READ_ABSENT,
            WRITE_ABSENT,
            WRITE_READ_ONLY,
            FETCH_ABSENT,
            EXCEPTION_REPORT,
            CPUID,
            MSR,
            MSR_UNKNOWN,
            SPIN,
            TRIPLE_FAULT,
            SELF_MODIFYING,
            DIRTY,
            DOORBELLS,
            SHOW_STATE,
            COUNTED_LOOP,
        ];
        assert!(listings.iter().all(|listing| !assemble(listing).is_empty()));
    }
}
