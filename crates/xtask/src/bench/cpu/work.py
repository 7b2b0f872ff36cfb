"""The Python workload of `cargo xtask bench cpu`: calls, dictionaries, strings, floats and objects."""


class Vector:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)

    def scaled(self, factor):
        return Vector(self.x * factor, self.y * factor)


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def words(count):
    seen = {}
    for i in range(count):
        word = "word%d" % (i * 7919 % 997)
        seen[word] = seen.get(word, 0) + 1
    return " ".join(f"{word}={seen[word]}" for word in sorted(seen))


def drift(steps):
    place = Vector(0.0, 0.0)
    speed = Vector(1.0, -0.5)
    for _ in range(steps):
        place = place + speed.scaled(0.01)
        speed = speed + Vector(-place.x, -place.y).scaled(0.01)
    return place


def primes(limit):
    flags = bytearray([1]) * limit
    for i in range(2, int(limit**0.5) + 1):
        if flags[i]:
            flags[i * i :: i] = bytes(len(range(i * i, limit, i)))
    return sum(flags) - 2


assert fibonacci(21) == 10946
assert len(words(60000).split()) == 997
assert abs(drift(40000).x) < 2.0
assert primes(300000) == 25997
