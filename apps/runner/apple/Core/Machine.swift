import Foundation

/// A model that is loaded. `run` is what is timed; it throws what the runtime throws.
protocol Model: AnyObject {
    var inputs: [Spec] { get }
    /// In the order of `inputs`; it means nothing, nor does that of the outputs: Core ML tells them apart by name.
    var inputNames: [String] { get }
    var outputNames: [String] { get }
    func set(_ values: [Data]) throws
    func run() throws
    /// An output of the last run; a Failure where it is no array.
    func output(_ name: String) throws -> (Spec, Data)
}

/// Memory that counts against the process, in bytes; `peak` since it was started.
struct Footprint {
    let now: Int
    let peak: Int
}

/// What the runner runs on: an iPhone, or a stand-in where the framework-free part is tested.
protocol Machine {
    /// For the event `start`: version, library and sha256 of what runs the models.
    var build: [(String, Json)] { get }
    func load(_ path: String, _ units: ComputeUnits) throws -> Model
    func conditions() -> [(String, Json)]
    func footprint() -> Footprint?
    /// What is left for files.
    func freeBytes() -> Int?
}

/// Nanoseconds of a clock that neither jumps nor is adjusted, and stands while the machine sleeps.
func clockNs() -> Int64 {
    #if canImport(Darwin)
        return Int64(clock_gettime_nsec_np(CLOCK_UPTIME_RAW))
    #else
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
    #endif
}

/// What memory rose by since this was made. The system tells only the highest of all times: nil where an earlier case
/// took as much.
struct Peak {
    private let before: Footprint?

    init(_ machine: Machine) {
        before = machine.footprint()
    }

    func rise(_ machine: Machine) -> Int? {
        guard let before, let after = machine.footprint(), after.peak > before.peak else { return nil }
        return after.peak - before.now
    }
}
