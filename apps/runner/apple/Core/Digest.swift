import Foundation

/// SHA-256 (FIPS 180-4), in plain Swift so that it is the same here and where the tests run.
struct Digest {
    private var state: [UInt32] = [
        0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19,
    ]
    private var held: [UInt8] = []
    private var length: UInt64 = 0
    private var words = [UInt32](repeating: 0, count: 64)

    mutating func add(_ data: Data) {
        length += UInt64(data.count)
        held.append(contentsOf: data)
        let whole = held.count / 64 * 64
        held.withUnsafeBytes { bytes in
            for start in stride(from: 0, to: whole, by: 64) {
                Digest.mix(&state, &words, bytes, start)
            }
        }
        held.removeFirst(whole)
    }

    /// The digest in hexadecimal digits.
    mutating func finish() -> String {
        let bits = length * 8
        let zeros = (119 - held.count) % 64
        add(Data([0x80] + [UInt8](repeating: 0, count: zeros)))
        add(withUnsafeBytes(of: bits.bigEndian) { Data($0) })
        return state.map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }.joined()
    }

    private static func mix(
        _ state: inout [UInt32], _ w: inout [UInt32], _ bytes: UnsafeRawBufferPointer, _ start: Int
    ) {
        for i in 0..<16 {
            w[i] = UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: start + 4 * i, as: UInt32.self))
        }
        for i in 16..<64 {
            let s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >> 3)
            let s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >> 10)
            w[i] = w[i - 16] &+ s0 &+ w[i - 7] &+ s1
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        for i in 0..<64 {
            let first = h &+ (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) &+ ((e & f) ^ (~e & g)) &+ constants[i] &+ w[i]
            let second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) &+ ((a & b) ^ (a & c) ^ (b & c))
            (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
        }
        for (i, word) in [a, b, c, d, e, f, g, h].enumerated() {
            state[i] = state[i] &+ word
        }
    }

    private static func turn(_ word: UInt32, _ by: UInt32) -> UInt32 {
        word >> by | word << (32 - by)
    }

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
    private static let constants: [UInt32] = {
        var primes: [UInt64] = []
        for number in UInt64(2)... where primes.count < 64 && !primes.contains(where: { number % $0 == 0 }) {
            primes.append(number)
            if primes.count == 64 { break }
        }
        return primes.map(cubeRootFraction)
    }()

    /// The bits of the cube root of a small number behind the point, by bisection in whole numbers: r^3 <= n * 2^96.
    private static func cubeRootFraction(_ number: UInt64) -> UInt32 {
        var low: UInt64 = 0, high: UInt64 = 1 << 35
        while low < high {
            let middle = (low + high + 1) / 2
            if cubeIsAtMost(middle, number) { low = middle } else { high = middle - 1 }
        }
        return UInt32(truncatingIfNeeded: low)
    }

    private static func cubeIsAtMost(_ root: UInt64, _ number: UInt64) -> Bool {
        let square = root.multipliedFullWidth(by: root)  // below 2^70
        let low = square.low.multipliedFullWidth(by: root)
        let high = square.high * root + low.high  // of the cube, above 64 bits; below 2^41
        let most = number << 32  // of number * 2^96, above 64 bits
        return high < most || (high == most && low.low == 0)
    }
}

/// The SHA-256 of a file; nil where it cannot be read.
func fileDigest(_ path: String) -> String? {
    guard let file = FileHandle(forReadingAtPath: path) else { return nil }
    defer { try? file.close() }
    var digest = Digest()
    do {
        while let data = try file.read(upToCount: 1 << 20), !data.isEmpty {
            digest.add(data)
        }
    } catch {
        return nil
    }
    return digest.finish()
}
