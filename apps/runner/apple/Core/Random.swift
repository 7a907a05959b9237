import Foundation

/// Numbers that are the same for the same seed, on every machine: those of runner/native/random.c.
/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Random {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func bits() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A uniform number of 0..<count.
    mutating func below(_ count: Int) -> Int {
        let fair = UInt64.max - UInt64.max % UInt64(count)  // what lies above would favour the first
        var drawn = bits()
        while drawn >= fair { drawn = bits() }
        return Int(drawn % UInt64(count))
    }

    /// Box and Muller 1958. A value too small for a normal half float is 0.
    mutating func normal() -> Double {
        let radius = sqrt(-2 * log(uniform()))
        let value = radius * cos(6.283185307179586 * uniform())
        return abs(value) < 0x1p-14 ? 0 : value
    }

    /// Values for a tensor, in C order: standard normal, integers of the full range.
    mutating func values(_ spec: Spec) -> Data {
        var data = Data(capacity: spec.bytes)
        for _ in 0..<spec.count {
            switch spec.element {
            case .float32: append(Float(normal()).bitPattern, to: &data)
            case .float64: append(normal().bitPattern, to: &data)
            case .float16: append(half(normal()), to: &data)
            case .int32: append(UInt32(truncatingIfNeeded: bits()), to: &data)
            }
        }
        return data
    }

    private mutating func uniform() -> Double {  // in (0, 1]
        Double((bits() >> 11) + 1) * 0x1p-53
    }

    private func append<Word: FixedWidthInteger>(_ word: Word, to data: inout Data) {
        withUnsafeBytes(of: word.littleEndian) { data.append(contentsOf: $0) }
    }
}

/// The nearest half float of a value between 2^-14 and 2^15, or 0.
func half(_ value: Double) -> UInt16 {
    if value == 0 { return 0 }
    let sign: UInt16 = value < 0 ? 0x8000 : 0
    let exponent = Int(abs(value).exponent)
    let mantissa = Int((abs(value).significand * 1024).rounded(.toNearestOrEven))  // 1024...2048; a carry moves on
    return sign | UInt16((exponent + 15) << 10 + (mantissa - 1024))
}
