// The app's framework-free part on any machine, with toy models: text files "relu f32 1 4 4 3" (what it does, its type,
// its shape). "relu" and "double" answer; "both" takes two inputs, a and b, and gives "difference" and "larger"; "crash"
// ends the process, "refuse" throws. Core ML is not in it.
import Foundation

final class ToyModel: Model {
    let inputs: [Spec]
    let inputNames: [String]
    let outputNames: [String]
    private let work: String
    private var values: [Data] = []
    private var results: [String: [Float]] = [:]

    init(_ path: String) throws {
        var place = path
        if path.hasSuffix(".zip") {
            let folder = path + ".unpacked"
            place = try unpack(path, into: folder) + "/toy.txt"
        }
        guard let data = FileManager.default.contents(atPath: place) else {
            throw Failure(kind: "load", message: "No such file or directory: \(place)")
        }
        let words = String(decoding: data, as: UTF8.self).split(whereSeparator: \.isWhitespace).map(String.init)
        guard words.count > 2, let element = Element(rawValue: words[1]) else {
            throw Failure(kind: "load", message: "no toy")
        }
        let both = words[0] == "both"
        let spec = Spec(element: element, shape: words.dropFirst(2).compactMap { Int($0) })
        work = words[0]
        inputNames = both ? ["a", "b"] : ["x"]
        outputNames = both ? ["difference", "larger"] : ["y"]
        inputs = both ? [spec, spec] : [spec]
    }

    func set(_ values: [Data]) throws {
        self.values = values
    }

    func run() throws {
        if work == "crash" { abort() }
        if work == "refuse" { throw CocoaError(.featureUnsupported) }
        let numbers = values.map { value in
            value.withUnsafeBytes { bytes in
                stride(from: 0, to: bytes.count, by: 4).map { bytes.loadUnaligned(fromByteOffset: $0, as: Float.self) }
            }
        }
        if work == "both" {
            results["difference"] = zip(numbers[0], numbers[1]).map { $0 - $1 }
            results["larger"] = zip(numbers[0], numbers[1]).map { max($0, $1) }
        } else {
            results["y"] = numbers[0].map { work == "relu" ? max($0, 0) : 2 * $0 }
        }
    }

    /// The rows lie apart, as those of the Neural Engine do: what is between them must not be seen.
    func output(_ name: String) throws -> (Spec, Data) {
        let spec = inputs[0]
        guard let width = spec.shape.last else { return (spec, Data()) }
        let apart = width + 5
        var spread = [Float](repeating: .nan, count: spec.count / width * apart)
        for (index, number) in (results[name] ?? []).enumerated() {
            spread[index / width * apart + index % width] = number
        }
        var strides = [Int](repeating: 1, count: spec.shape.count)
        for axis in spec.shape.indices.dropLast().reversed() {
            strides[axis] = axis == spec.shape.count - 2 ? apart : strides[axis + 1] * spec.shape[axis + 1]
        }
        return (spec, spread.withUnsafeBytes { packed($0, spec, strides: strides) })
    }
}

struct StandIn: Machine {
    let build: [(String, Json)] = [
        ("version", .text("0")), ("library", .text("toy")), ("sha256", .text(String(repeating: "0", count: 64))),
    ]

    func load(_ path: String, _ units: ComputeUnits) throws -> Model {
        try ToyModel(path)
    }

    func conditions() -> [(String, Json)] {
        [("time", .number(Date().timeIntervalSince1970)), ("clock_s", .number(Double(clockNs()) / 1e9))]
    }

    func footprint() -> Footprint? {
        Footprint(now: 1000, peak: 1000 + Int(clockNs() / 1_000_000))
    }

    func freeBytes() -> Int? {
        12_345_678
    }
}

// `values SEED COUNT`: the random generator's first numbers; else a job's path.
if CommandLine.arguments.count == 4, CommandLine.arguments[1] == "values" {
    var random = Random(seed: UInt64(CommandLine.arguments[2]) ?? 0)
    for _ in 0..<(Int(CommandLine.arguments[3]) ?? 0) {
        print(half(random.normal()))
    }
    exit(0)
}
exit(runJob(CommandLine.arguments[1], on: StandIn()))
