import Foundation

/// A job under way: what its modes share.
struct Work {
    let job: Job
    let machine: Machine
    let lines: Lines

    func load(_ item: Case) throws -> Model {
        try failing("load") { try machine.load(item.model, job.units) }
    }

    func run(_ model: Model) throws {
        try failing("run") { try model.run() }
    }

    /// A model with inputs that has run once. The inputs are the same for the same shapes.
    func prepared(_ item: Case) throws -> Model {
        let model = try load(item)
        var random = Random(seed: 0)
        let values = model.inputs.map { random.values($0) }
        try failing("input") { try model.set(values) }
        try run(model)
        return model
    }

    func begin(_ item: Case, round: Int) {
        lines.send("begin", [("case", .text(item.id)), ("round", .whole(round))])
    }

    func fail(_ item: Case, _ failure: Failure) {
        let members: [(String, Json)] = [("kind", .text(failure.kind)), ("message", .text(failure.message))]
        lines.send("error", [("case", .text(item.id))] + members)
    }

    func conditions(_ when: String) {
        lines.send("conditions", [("when", .text(when))] + machine.conditions())
    }

    /// What a runtime throws, as a Failure of this kind.
    func failing<Result>(_ kind: String, _ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(kind: kind, message: error.localizedDescription)
        }
    }

    /// The modes that take one case after the other.
    func oneByOne() {
        for item in job.cases {
            begin(item, round: 0)
            do {
                switch job.mode {
                case .infer: try infer(item)
                case .memory: try memory(item)
                default:  // a compute plan tells where operations run and what they might cost, no times
                    throw Failure(kind: "run", message: "\(job.runtime) has no profiler that this runner can ask")
                }
            } catch let failure as Failure {
                fail(item, failure)
            } catch {
                fail(item, Failure(kind: "run", message: error.localizedDescription))
            }
        }
    }

    /// The memory that loading and running the file adds.
    private func memory(_ item: Case) throws {
        let peak = Peak(machine)
        let model = try prepared(item)
        for _ in 0..<max(0, job.runs) {
            try run(model)
        }
        lines.send("memory", [("case", .text(item.id)), ("peak_bytes", .told(peak.rise(machine)))])
    }
}
