import Foundation

extension Work {
    private static let tellNs: Int64 = 250_000_000  // between two lines of progress

    /// Runs each input alone (batch 1) and saves the outputs as the model gives them.
    func infer(_ item: Case) throws {
        guard let from = item.inputs, let to = item.outputs else { return }  // Job has seen to that
        let peak = Peak(machine)
        let model = try load(item)
        let inputs = try NpyReader(from)
        let spec = try fitting(model, inputs.spec)
        var risen: Int?
        var writer: NpyWriter?
        var row: Spec?
        var told = clockNs()
        do {
            for index in 0..<inputs.spec.shape[0] {
                let value = try inputs.read(spec.bytes)
                try failing("input") { try model.set([value]) }
                try run(model)
                if index <= job.runs {  // later on the inputs and outputs kept here would count
                    risen = peak.rise(machine)
                }
                let (given, output) = try failing("run") { try model.output() }
                if writer == nil {
                    row = given.row
                    writer = try NpyWriter(to, rows: inputs.spec.shape[0], row: given.row)
                }
                guard given.row == row else {
                    throw Failure(kind: "run", message: "the outputs differ in shape: \(shapeText(given.row.shape))")
                }
                try writer?.write(output)
                if clockNs() - told > Work.tellNs || index + 1 == inputs.spec.shape[0] {
                    told = clockNs()
                    lines.send("progress", [("case", .text(item.id)), ("done", .whole(index + 1))])
                }
            }
            try writer?.finish()
        } catch {
            writer?.discard()
            throw error
        }
        lines.send("outputs", [
            ("case", .text(item.id)), ("file", .text(to)), ("count", .whole(inputs.spec.shape[0])),
            ("peak_bytes", .told(risen)), ("sha256", fileDigest(to).map(Json.text) ?? .null),
        ])
    }

    /// The spec of the one input, when the given array fits it.
    private func fitting(_ model: Model, _ given: Spec) throws -> Spec {
        guard let spec = model.inputs.first, model.inputs.count == 1 else {
            let message = "the file has \(model.inputs.count) inputs; inference feeds files with one"
            throw Failure(kind: "input", message: message)
        }
        let fits = spec.shape.first == 1 && given.element == spec.element && given.shape.first ?? 0 > 0
        guard fits, given.shape.dropFirst() == spec.shape.dropFirst() else {
            let said = "the inputs are \(given.element.rawValue) \(shapeText(given.shape))"
            let wanted = "\(spec.element.rawValue) \(shapeText(spec.shape))"
            throw Failure(kind: "input", message: "\(said), the file takes \(wanted)")
        }
        return spec
    }
}
