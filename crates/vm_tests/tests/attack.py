# Runs in the guest as root: takes virtio devices from the kernel and drives them as no driver should.
# It reaches their registers through the PCI configuration access capability (virtio 1.3, 4.1.4.9), so it needs
# nothing that maps memory; rings lie in its own pages, whose guest-physical addresses the kernel tells.
import os, random, struct, time

BASE = '/sys/bus/pci/devices/'
DRIVER = '/sys/bus/pci/drivers/virtio-pci/'
PAGE = 4096
NEXT, WRITE, INDIRECT = 1, 2, 4
NEEDS_RESET = 0x40
VERSION_1 = 1 << 32
COMMON, NOTIFY, ACCESS = 1, 2, 5


def names(kind):
    return [name for name in sorted(os.listdir(BASE)) if open(BASE + name + '/device').read().strip() == kind]


def tell(file, text):
    with open(file, 'w') as out:
        out.write(text)


class Memory:
    """Pages of this process."""

    def __init__(self, pages):
        self.bytes = bytearray((pages + 1) * PAGE)
        self.bytes[:] = b'\xff' * len(self.bytes)
        with open('/proc/self/mem', 'rb', 0) as mem:
            # ob_start of CPython's PyByteArrayObject.
            mem.seek(id(self.bytes) + 40)
            start, = struct.unpack('<Q', mem.read(8))
        self.skip = -start % PAGE
        with open('/proc/self/pagemap', 'rb', 0) as pagemap:
            pagemap.seek((start + self.skip) // PAGE * 8)
            entries = struct.unpack('<%dQ' % pages, pagemap.read(8 * pages))
        self.frames = [entry & (1 << 55) - 1 for entry in entries]
        assert all(self.frames), 'no addresses'

    def gpa(self, page):
        return self.frames[page] * PAGE

    def put(self, page, offset, data):
        at = self.skip + page * PAGE + offset
        self.bytes[at:at + len(data)] = data

    def get(self, page, offset, length):
        at = self.skip + page * PAGE + offset
        return bytes(self.bytes[at:at + length])


class Ring:
    """A queue of eight: pages for descriptors, available, used, an indirect table, request and answer."""

    SIZE = 8

    def __init__(self, memory, first):
        self.memory = memory
        self.descriptors, self.available, self.used, self.table, self.request, self.answer = range(first, first + 6)
        self.clear()

    def clear(self):
        self.offered = 0
        for page in range(self.descriptors, self.answer + 1):
            self.memory.put(page, 0, bytes(PAGE))

    def place(self):
        return [self.memory.gpa(page) for page in (self.descriptors, self.available, self.used)]

    def describe(self, index, gpa, length, flags=0, following=0, page=None):
        page = self.descriptors if page is None else page
        self.memory.put(page, 16 * index, struct.pack('<QIHH', gpa & (1 << 64) - 1, length, flags, following))

    def offer(self, head):
        self.memory.put(self.available, 4 + 2 * (self.offered % self.SIZE), struct.pack('<H', head))
        self.offered += 1
        self.memory.put(self.available, 2, struct.pack('<H', self.offered & 0xffff))

    def done(self):
        return struct.unpack('<H', self.memory.get(self.used, 2, 2))[0]


class Device:
    def __init__(self, name, rings):
        self.name, self.rings = name, rings
        self.config = os.open(BASE + name + '/config', os.O_RDWR)
        self.write(4, 2, self.read(4, 2) | 6)
        self.capabilities, self.msix, self.seen = {}, None, [None] * 3
        at = self.read(0x34, 1)
        while at:
            if self.read(at, 1) == 9:
                self.capabilities[self.read(at + 3, 1)] = at
            elif self.read(at, 1) == 0x11:
                self.msix = at
            at = self.read(at + 1, 1)

    def read(self, at, width):
        return int.from_bytes(os.pread(self.config, width, at), 'little')

    def write(self, at, width, value):
        os.pwrite(self.config, (value & (1 << 8 * width) - 1).to_bytes(width, 'little'), at)

    def window(self, offset, width):
        access = self.capabilities[ACCESS]
        for number, value in enumerate((0, offset, width)):
            # Every access leaves the guest: what the window shows already is not written again.
            if self.seen[number] != value:
                self.write(access + 4 + 4 * number, 4 if number else 1, value)
                self.seen[number] = value
        return access + 16

    def load(self, offset, width):
        return self.read(self.window(offset, width), width)

    def store(self, offset, width, value):
        self.write(self.window(offset, width), width, value)

    def structure(self, kind):
        return self.read(self.capabilities[kind] + 8, 4)

    def common(self, offset, width, value):
        self.store(self.structure(COMMON) + offset, width, value)

    def status(self):
        return self.load(self.structure(COMMON) + 0x14, 1)

    def reset(self):
        self.common(0x14, 1, 0)
        while self.status():
            pass

    def start(self, places=None, size=Ring.SIZE, vector=0xffff):
        self.reset()
        for ring in self.rings:
            ring.clear()
        self.common(0x14, 1, 3)
        for half in (0, 1):
            self.common(0x08, 4, half)
            self.common(0x0c, 4, VERSION_1 >> 32 * half)
        self.common(0x14, 1, 11)
        for queue, place in enumerate(places or [ring.place() for ring in self.rings]):
            self.common(0x16, 2, queue)
            self.common(0x18, 2, size)
            self.common(0x1a, 2, vector)
            for number, gpa in enumerate(place):
                self.common(0x20 + 8 * number, 4, gpa)
                self.common(0x24 + 8 * number, 4, gpa >> 32)
            self.common(0x1c, 2, 1)
        self.common(0x14, 1, 15)

    def ring_bell(self, queue):
        notify = self.capabilities[NOTIFY]
        self.store(self.structure(NOTIFY) + queue * self.read(notify + 16, 4), 2, queue)

    def wait(self, ring, count, seconds=10):
        """Whether so many requests were served; false where the device broke."""
        end = time.monotonic() + seconds
        while ring.done() != count & 0xffff:
            if self.status() & NEEDS_RESET or time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True


class Attacker:
    def __init__(self, device, queue, request, answered):
        self.device, self.queue, self.ring = device, queue, device.rings[queue]
        self.memory = self.ring.memory
        self.request, self.answered = request, answered

    def serves(self):
        """A proper request after a reset is served."""
        self.device.start()
        ring = self.ring
        self.memory.put(ring.request, 0, self.request)
        self.describe_proper(ring.descriptors)
        ring.offer(0)
        self.device.ring_bell(self.queue)
        assert self.device.wait(ring, 1), 'it does not serve any more'
        assert self.answered(self.memory.get(ring.answer, 0, 64)), 'it serves badly'

    def describe_proper(self, page):
        ring, memory = self.ring, self.memory
        answer = memory.gpa(ring.answer)
        if self.request:
            ring.describe(0, memory.gpa(ring.request), len(self.request), NEXT, 1, page)
            ring.describe(1, answer, 1024, WRITE, 0, page)
        else:
            ring.describe(0, answer, 1024, WRITE, 0, page)

    def refused(self, what, prepare):
        self.device.start()
        prepare()
        self.device.ring_bell(self.queue)
        assert not self.device.wait(self.ring, 1, 5) and self.device.status() & NEEDS_RESET, what

    def bad_chains(self):
        ring, memory = self.ring, self.memory
        data, table = memory.gpa(ring.answer), memory.gpa(ring.table)
        hole = self.device.read(0x10, 4) & ~15

        def chain(*descriptors):
            def prepare():
                for index, descriptor in enumerate(descriptors):
                    ring.describe(index, *descriptor)
                ring.offer(0)
            return prepare

        def indirect(*descriptors):
            def prepare():
                for index, descriptor in enumerate(descriptors):
                    ring.describe(index, *descriptor, page=ring.table)
                ring.describe(0, table, 16 * len(descriptors), INDIRECT)
                ring.offer(0)
            return prepare

        def leap():
            memory.put(ring.available, 2, struct.pack('<H', 40000))

        attacks = {
            'loop': chain((data, 8, NEXT, 1), (data, 8, NEXT, 0)),
            'loop of one': chain((data, 8, NEXT, 0)),
            'next outside the table': chain((data, 8, NEXT, 60000)),
            'head outside the table': lambda: ring.offer(60000),
            'index that leaps': leap,
            'wild address': chain((-PAGE, 8, WRITE)),
            'address of no RAM': chain((1 << 40, 8, WRITE)),
            'address of a device': chain((hole, 8, WRITE)),
            'length beyond RAM': chain((data, 0xffffffff, WRITE)),
            'lengths of 2^32 together': chain(*[(0, 0x10000000, WRITE | NEXT, n + 1) for n in range(8)]),
            'readable after writable': chain((data, 8, WRITE | NEXT, 1), (data, 8)),
            'indirect in indirect': indirect((table, 16, INDIRECT)),
            'indirect loop': indirect((data, 8, NEXT, 0)),
            'indirect next outside': indirect((data, 8, NEXT, 7)),
            'indirect of no length': chain((table, 0, INDIRECT)),
            'indirect that is cut': chain((table, 15, INDIRECT)),
            'indirect far too long': chain((table, 0xfffffff0, INDIRECT)),
            'indirect nowhere': chain((1 << 63, 16, INDIRECT)),
        }
        for what, prepare in attacks.items():
            self.refused(what, prepare)
        self.serves()
        return len(attacks)

    def bad_rings(self):
        """Rings where none can be: said at once, before any bell."""
        good = [ring.place() for ring in self.device.rings]
        bad = [(0, 1 << 40), (1, -2), (2, -4), (0, good[0][0] + 8), (1, good[0][1] + 1), (2, good[0][2] + 2)]
        for which, gpa in bad:
            place = list(good[self.queue])
            place[which] = gpa
            places = list(good)
            places[self.queue] = place
            self.device.start(places)
            assert self.device.status() & NEEDS_RESET, (which, hex(gpa))
        self.serves()
        return len(bad)

    def odd_rings(self):
        """What a device need not refuse, but has to bear."""
        good = [ring.place() for ring in self.device.rings]
        descriptors, available, used = good[self.queue]
        for place in (
            [descriptors, descriptors, descriptors],
            [descriptors, available, descriptors],
            [available, available, available],
        ):
            places = list(good)
            places[self.queue] = place
            self.device.start(places)
            self.describe_proper(self.ring.descriptors)
            for _ in range(5):
                self.ring.offer(0)
                self.device.ring_bell(self.queue)
        for size in (0, 3, 1, 32768, 65535):
            self.device.start(size=size)
            self.describe_proper(self.ring.descriptors)
            self.ring.offer(0)
            self.device.ring_bell(self.queue)
        self.serves()

    def noise(self, rounds):
        """Rings and registers full of anything, while the device works."""
        random.seed(rounds)
        for _ in range(rounds):
            self.device.start()
            for page in (self.ring.descriptors, self.ring.available, self.ring.table):
                self.memory.put(page, 0, random.randbytes(256))
            # Where it may well find something.
            for index in range(4):
                pages = (self.ring.descriptors, self.ring.available, self.ring.used, self.ring.answer)
                gpa = self.memory.gpa(random.choice(pages))
                self.ring.describe(index, gpa, random.randrange(5000), random.randrange(8), random.randrange(4))
            self.memory.put(self.ring.available, 2, struct.pack('<HH', random.randrange(4), random.randrange(4)))
            self.device.ring_bell(self.queue)
            for _ in range(6):
                width = random.choice((1, 2, 4))
                place = random.choice((0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x7ff0))
                offset = place + random.randrange(0, 0x40, width)
                self.device.store(offset, width, random.choice((0, 1, 3, 15, 255, random.getrandbits(32))))
                self.device.load(offset, width)
            self.silence()
        self.serves()

    def silence(self):
        """No interrupts to wherever the noise has sent them."""
        self.device.reset()
        self.device.write(self.device.msix + 2, 2, 0)

    def interrupts_anywhere(self):
        table = self.device.read(self.device.msix + 4, 4) & ~7
        for address, data in ((0, 0), (1 << 63, 5), (0xfee00000, 0), (0xfeefffff, 0xffffffff), (0xdeadbeef, 1)):
            for entry in range(2):
                self.device.store(table + 16 * entry, 4, address)
                self.device.store(table + 16 * entry + 4, 4, address >> 32)
                self.device.store(table + 16 * entry + 8, 4, data)
                self.device.store(table + 16 * entry + 12, 4, 0)
            self.device.start(vector=0)
            self.device.write(self.device.msix + 2, 2, 0x8000)
            self.describe_proper(self.ring.descriptors)
            self.ring.offer(0)
            self.device.ring_bell(self.queue)
            self.device.wait(self.ring, 1, 1)
            self.silence()
        self.serves()

    def bar_anywhere(self, others):
        before = self.device.read(0x10, 4)
        for gpa in (0, 0x1000000, 0xc0000000 - 0x8000, 0xe0000000, 0xfec00000, 0xfee00000, 0xffff8000, *others):
            self.device.write(0x10, 4, gpa)
            self.device.start()
            self.device.ring_bell(self.queue)
        self.device.write(0x10, 4, before)
        self.serves()


def attack(device, queue, request, answered, others=()):
    attacker = Attacker(device, queue, request, answered)
    attacker.serves()
    refused = attacker.bad_chains() + attacker.bad_rings()
    attacker.odd_rings()
    attacker.noise(20)
    attacker.interrupts_anywhere()
    attacker.bar_anywhere(others)
    device.reset()
    return refused


def fuse(opcode, node, body, unique=1):
    return struct.pack('<IIQQIIII', 40 + len(body), opcode, unique, node, 0, 0, 0, 0) + body


def fuse_noise(device, queue):
    """File requests full of anything: the device answers each, whatever the service makes of it."""
    ring = device.rings[queue]
    random.seed(7)
    for _ in range(5):
        device.start()
        for count in range(1, 31):
            size = random.choice((0, 1, 39, 40, 47, 64, 500))
            body = random.randbytes(size)
            if size >= 40:
                length = random.choice((size, size, size, 0, 40, 0xffffffff))
                body = struct.pack('<IIQQ', length, random.randrange(60), count, random.choice((0, 1, 2, 1 << 63))) + body[24:]
            ring.memory.put(ring.request, 0, body)
            room = random.choice((0, 1, 15, 16, 100, 4096))
            ring.describe(0, ring.memory.gpa(ring.request), len(body), NEXT, 1)
            ring.describe(1, ring.memory.gpa(ring.answer), room, WRITE)
            ring.offer(0)
            device.ring_bell(queue)
            assert device.wait(ring, count), 'a request was not answered'
    device.reset()


def main():
    memory = Memory(12)
    rings = [Ring(memory, 0), Ring(memory, 6)]

    rng = names('0x1044')[0]
    tell(DRIVER + 'unbind', rng)
    refused = attack(Device(rng, rings[:1]), 0, b'', any)
    tell(DRIVER + 'bind', rng)
    print('rng refused %d attacks and serves' % refused, flush=True)

    share = names('0x105a')[-1]
    os.system('umount /share')
    tell(DRIVER + 'unbind', share)
    device = Device(share, rings)
    init = fuse(26, 0, struct.pack('<IIII', 7, 36, 1 << 16, 0))
    answered = lambda answer: struct.unpack('<Ii', answer[:8])[1] == 0
    refused = attack(device, 1, init, answered, [Device(rng, []).read(0x10, 4) & ~15])
    fuse_noise(device, 1)
    tell(DRIVER + 'bind', share)
    print('share refused %d attacks and serves' % refused, flush=True)
    os.system('mount -t virtiofs share0 /share && cat /share/given && echo made >/share/made')


main()
