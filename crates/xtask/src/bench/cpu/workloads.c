/* The guest's half of `cargo xtask bench cpu`: the first program of an initramfs that runs workloads one after
   another and says on its console what each took. On the host it does the same as an ordinary program.

   usage: PROGRAM [NAME...]      run these workloads, or all
          PROGRAM --only-exit   what the "spawn" workload starts */

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            printf("check failed, line %d: %s\n", __LINE__, #condition);                                     \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static const char *self = "/init";

/* A fixed sequence of numbers (the 64-bit generator of Marsaglia, "Xorshift RNGs", 2003). */
static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes);
    CHECK(memory != NULL);
    return memory;
}

/* The primes below a limit, by crossing out. */
static void sieve(void) {
    enum { LIMIT = 2000000, ROUNDS = 8 };
    unsigned char *crossed = allocate(LIMIT);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned primes = 0;
        memset(crossed, 0, LIMIT);
        for (unsigned i = 2; i < LIMIT; i++) {
            if (crossed[i])
                continue;
            primes++;
            for (uint64_t j = (uint64_t)i * i; j < LIMIT; j += i)
                crossed[j] = 1;
        }
        CHECK(primes == 148933);
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The C library's sort, which calls a comparison through a pointer. */
static void sort(void) {
    enum { COUNT = 700000 };
    uint32_t *numbers = allocate(COUNT * sizeof *numbers);
    uint64_t state = 88172645463325252ull;
    for (size_t i = 0; i < COUNT; i++)
        numbers[i] = (uint32_t)next_random(&state);
    qsort(numbers, COUNT, sizeof *numbers, compare);
    for (size_t i = 1; i < COUNT; i++)
        CHECK(numbers[i - 1] <= numbers[i]);
}

/* Bodies that attract each other, in doubles: their total momentum stays. */
static void nbody(void) {
    enum { BODIES = 5, STEPS = 400000 };
    static double place[BODIES][3], speed[BODIES][3], mass[BODIES];
    uint64_t state = 1234567;
    for (int i = 0; i < BODIES; i++) {
        mass[i] = 1.0 + i;
        for (int k = 0; k < 3; k++) {
            place[i][k] = (double)(next_random(&state) % 2000) / 100.0;
            speed[i][k] = 0.0;
        }
    }
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < BODIES; i++) {
            for (int j = i + 1; j < BODIES; j++) {
                double apart[3], square = 0.05;
                for (int k = 0; k < 3; k++) {
                    apart[k] = place[i][k] - place[j][k];
                    square += apart[k] * apart[k];
                }
                double pull = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    speed[i][k] -= apart[k] * mass[j] * pull;
                    speed[j][k] += apart[k] * mass[i] * pull;
                }
            }
        }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                place[i][k] += 0.001 * speed[i][k];
    }
    double momentum = 0.0;
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            momentum += mass[i] * speed[i][k];
    CHECK(fabs(momentum) < 1e-6);
}

/* One random cycle through all cells (Sattolo's shuffle), followed: each load waits for the one before. */
static void chase(void) {
    enum { CELLS = 1 << 21, HOPS = 4000000 };
    uint32_t *next = allocate(CELLS * sizeof *next);
    uint64_t state = 424242;
    for (uint32_t i = 0; i < CELLS; i++)
        next[i] = i;
    for (uint32_t i = CELLS - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(next_random(&state) % i), cell = next[i];
        next[i] = next[j];
        next[j] = cell;
    }
    uint32_t at = 0, returns = 0;
    for (int hop = 0; hop < HOPS; hop++) {
        at = next[at];
        returns += at == 0;
    }
    CHECK(returns == HOPS / CELLS);
}

static void copy(void) {
    enum { ROUNDS = 120 };
    const size_t size = 8 * MIB;
    unsigned char *from = allocate(size), *to = allocate(size);
    memset(from, 0x5a, size);
    for (int round = 0; round < ROUNDS; round++) {
        from[(size_t)round * 4096] = (unsigned char)round;
        memcpy(to, from, size);
        CHECK(to[(size_t)round * 4096] == (unsigned char)round);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
}

static void system_calls(void) {
    long parent = getppid();
    for (int i = 0; i < 700000; i++)
        CHECK(syscall(SYS_getppid) == parent);
}

static void page_faults(void) {
    const size_t size = 16 * MIB;
    for (int round = 0; round < 12; round++) {
        unsigned char *memory =
            mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(memory != MAP_FAILED);
        for (size_t at = 0; at < size; at += 4096)
            memory[at]++;
        CHECK(munmap(memory, size) == 0);
    }
}

/* A byte sent to and fro between two processes. */
static void ping_pong(void) {
    enum { ROUNDS = 25000 };
    int to[2], from[2];
    char byte = 'x';
    CHECK(pipe(to) == 0 && pipe(from) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (int i = 0; i < ROUNDS; i++)
            if (read(to[0], &byte, 1) != 1 || write(from[1], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    for (int i = 0; i < ROUNDS; i++)
        CHECK(write(to[1], &byte, 1) == 1 && read(from[0], &byte, 1) == 1);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static int run(char *const *command) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        execv(command[0], command);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void spawn(void) {
    char *command[] = {(char *)self, "--only-exit", NULL};
    for (int i = 0; i < 250; i++)
        CHECK(run(command) == 0);
}

/* A workload is one of the functions above or one of Debian's programs. */
struct workload {
    const char *name;
    void (*function)(void);
    char *command[8];
};

static const struct workload workloads[] = {
    {"sha256", NULL, {"/usr/bin/sha256sum", "tmp/zeros"}},
    {"md5", NULL, {"/usr/bin/md5sum", "tmp/zeros"}},
    {"sieve", sieve, {NULL}},
    {"sort", sort, {NULL}},
    {"nbody", nbody, {NULL}},
    {"chase", chase, {NULL}},
    {"memcpy", copy, {NULL}},
    {"syscalls", system_calls, {NULL}},
    {"faults", page_faults, {NULL}},
    {"pipe", ping_pong, {NULL}},
    {"spawn", spawn, {NULL}},
    {"gcc", NULL, {"/usr/bin/gcc", "-O2", "-c", "src/workloads.c", "-o", "tmp/workloads.o"}},
    {"python", NULL, {"/usr/bin/python3", "-I", "-S", "src/work.py"}},
    {"gzip", NULL, {"/usr/bin/gzip", "-c", "tmp/sample"}},
};
enum { WORKLOADS = sizeof workloads / sizeof *workloads };

static void say(const char *line) {
    if (write(1, line, strlen(line)) < 0)
        _exit(1);
}

static void perform(const struct workload *workload) {
    char line[128];
    struct timespec start, end;
    snprintf(line, sizeof line, "cpu-bench begin %s\n", workload->name);
    say(line);
    clock_gettime(CLOCK_MONOTONIC, &start);
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        if (workload->function) {
            workload->function();
            exit(0);
        }
        int nowhere = open("/dev/null", O_WRONLY);
        if (nowhere >= 0)
            dup2(nowhere, 1);
        execv(workload->command[0], workload->command);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        status = -1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double milliseconds =
        (double)(end.tv_sec - start.tv_sec) * 1e3 + (double)(end.tv_nsec - start.tv_nsec) / 1e6;
    snprintf(line, sizeof line, "cpu-bench end %s %d %.3f\n", workload->name, status, milliseconds);
    say(line);
}

/* What the programs read: zeros to hash, and the start of a program to compress. */
static void make_files(void) {
    unsigned char *buffer = allocate(MIB);
    memset(buffer, 0, MIB);
    mkdir("tmp", 0777);
    FILE *zeros = fopen("tmp/zeros", "w"), *sample = fopen("tmp/sample", "w");
    FILE *program = fopen("/usr/bin/python3", "r");
    CHECK(zeros && sample);
    for (int i = 0; i < 32; i++)
        CHECK(fwrite(buffer, 1, MIB, zeros) == MIB);
    for (int i = 0; program && i < 2; i++)
        CHECK(fread(buffer, 1, MIB, program) == MIB && fwrite(buffer, 1, MIB, sample) == MIB);
    CHECK(fclose(zeros) == 0 && fclose(sample) == 0);
    free(buffer);
}

int main(int count, char **words) {
    if (count == 2 && strcmp(words[1], "--only-exit") == 0)
        return 0;
    if (getpid() == 1) {
        mkdir("/dev", 0755);
        mkdir("/proc", 0755);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mount("proc", "/proc", "proc", 0, NULL);
        setenv("PATH", "/usr/bin:/bin", 1);
    } else {
        self = "/proc/self/exe";
    }
    make_files();
    say("cpu-bench ready\n");
    for (int i = 0; i < WORKLOADS; i++) {
        int wanted = count < 2;
        for (int word = 1; word < count; word++)
            wanted |= strcmp(words[word], workloads[i].name) == 0;
        if (wanted)
            perform(&workloads[i]);
    }
    say("cpu-bench done\n");
    while (getpid() == 1)
        pause();
    return 0;
}
