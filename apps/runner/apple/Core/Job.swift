import Foundation

/// A job that cannot be read, and why.
struct BadJob: Error {
    let why: String
}

enum Mode: String, Decodable {
    case time, infer, memory, profile, files
}

enum Schedule: String, Decodable {
    case interleaved, mirrored, shuffled, sequential
}

/// Where Core ML may run a model, by the names that coremltools gives them.
enum ComputeUnits: String, Decodable {
    case all = "ALL"
    case cpuAndGPU = "CPU_AND_GPU"
    case cpuAndNeuralEngine = "CPU_AND_NE"
    case cpuOnly = "CPU_ONLY"
}

struct Case: Decodable {
    let id: String
    let model: String
    let inputs: String?
    let moreInputs: [String]
    let inputNames: [String]?
    let outputs: String?
    let outputNames: [String]?
    let firstRound: Int

    enum CodingKeys: String, CodingKey {
        case id, model, inputs, outputs
        case moreInputs = "more_inputs"
        case inputNames = "input_names"
        case outputNames = "output_names"
        case firstRound = "first_round"
    }

    init(from decoder: Decoder) throws {
        let box = try decoder.container(keyedBy: CodingKeys.self)
        id = try box.decode(String.self, forKey: .id)
        model = try box.decode(String.self, forKey: .model)
        inputs = try box.decodeIfPresent(String.self, forKey: .inputs)
        moreInputs = try box.decodeIfPresent([String].self, forKey: .moreInputs) ?? []
        inputNames = try box.decodeIfPresent([String].self, forKey: .inputNames)
        outputs = try box.decodeIfPresent(String.self, forKey: .outputs)
        outputNames = try box.decodeIfPresent([String].self, forKey: .outputNames)
        firstRound = try box.decodeIfPresent(Int.self, forKey: .firstRound) ?? 0
    }
}

/// How cases are visited and timed.
struct Timing: Decodable {
    let schedule: Schedule
    let rounds: Int
    let keepLoaded: Bool
    let warmUpRuns: Int
    let warmUpS: Double
    let steady: Double
    let warmUpMostS: Double
    let minRuns: Int
    let minS: Double
    let maxSamples: Int
    let seed: UInt64

    enum CodingKeys: String, CodingKey {
        case schedule, rounds, steady, seed
        case keepLoaded = "keep_loaded"
        case warmUpRuns = "warm_up_runs"
        case warmUpS = "warm_up_s"
        case warmUpMostS = "warm_up_most_s"
        case minRuns = "min_runs"
        case minS = "min_s"
        case maxSamples = "max_samples"
    }

    init(from decoder: Decoder) throws {
        let box = try decoder.container(keyedBy: CodingKeys.self)
        schedule = try box.decode(Schedule.self, forKey: .schedule)
        rounds = try box.decode(Int.self, forKey: .rounds)
        keepLoaded = try box.decode(Bool.self, forKey: .keepLoaded)
        warmUpRuns = try box.decode(Int.self, forKey: .warmUpRuns)
        warmUpS = try box.decode(Double.self, forKey: .warmUpS)
        steady = try box.decodeIfPresent(Double.self, forKey: .steady) ?? 0
        warmUpMostS = try box.decodeIfPresent(Double.self, forKey: .warmUpMostS) ?? 0
        minRuns = try box.decode(Int.self, forKey: .minRuns)
        minS = try box.decode(Double.self, forKey: .minS)
        maxSamples = try box.decode(Int.self, forKey: .maxSamples)
        seed = try box.decodeIfPresent(UInt64.self, forKey: .seed) ?? 0
        guard maxSamples >= 1 else {
            throw BadJob(why: "`max_samples` is too small")
        }
    }
}

/// What to run: the job of apps/runner/python_runner.py, and the mode "files" (see Files.swift).
struct Job: Decodable {
    static let version = 1

    let mode: Mode
    let runtime: String
    let threads: Int
    let units: ComputeUnits
    let cores: [Int]?
    let cases: [Case]
    let runs: Int
    let timing: Timing?
    let sums: [String]
    let remove: [String]

    enum CodingKeys: String, CodingKey {
        case version, mode, runtime, threads, cores, cases, runs, sums, remove
        case units = "compute_units"
    }

    init(from decoder: Decoder) throws {
        let box = try decoder.container(keyedBy: CodingKeys.self)
        let version = try box.decode(Int.self, forKey: .version)
        guard version == Job.version else {
            throw BadJob(why: "this runner reads jobs of version \(Job.version), not \(version)")
        }
        mode = try box.decode(Mode.self, forKey: .mode)
        let models = mode != .files
        runtime = models ? try box.decode(String.self, forKey: .runtime) : "coreml"
        threads = models ? try box.decode(Int.self, forKey: .threads) : 1
        units = try box.decodeIfPresent(ComputeUnits.self, forKey: .units) ?? .all
        cores = try box.decodeIfPresent([Int].self, forKey: .cores)
        cases = models ? try box.decode([Case].self, forKey: .cases) : []
        timing = mode == .time ? try Timing(from: decoder) : nil
        runs = models && mode != .time ? try box.decode(Int.self, forKey: .runs) : 0
        sums = try box.decodeIfPresent([String].self, forKey: .sums) ?? []
        remove = try box.decodeIfPresent([String].self, forKey: .remove) ?? []
        if mode == .infer, cases.contains(where: { $0.inputs == nil || $0.outputs == nil }) {
            throw BadJob(why: "`inputs` or `outputs` of a case is not there")
        }
    }

    /// The job in a file; says what is wrong with it by the name of the member.
    static func read(_ path: String) throws -> Job {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw BadJob(why: "it cannot be read")
        }
        do {
            return try JSONDecoder().decode(Job.self, from: data)
        } catch let DecodingError.keyNotFound(key, _) {
            throw BadJob(why: "`\(key.stringValue)` is not there")
        } catch let DecodingError.typeMismatch(_, context) {
            throw BadJob(why: "`\(name(context))` is of another kind than it should be")
        } catch let DecodingError.valueNotFound(_, context) {
            throw BadJob(why: "`\(name(context))` is null")
        } catch let DecodingError.dataCorrupted(context) {
            guard !context.codingPath.isEmpty else {
                // Foundation does not say which: a fraction where a whole number has to be comes here, too.
                throw BadJob(why: "it is no JSON, or a number in it is of another kind: \(context.debugDescription)")
            }
            throw BadJob(why: "`\(name(context))` is none that this runner knows")
        }
    }

    private static func name(_ context: DecodingError.Context) -> String {
        context.codingPath.last(where: { $0.intValue == nil })?.stringValue ?? "job"
    }
}
