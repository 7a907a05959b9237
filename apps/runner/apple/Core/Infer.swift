import Foundation

/// An output under way: its rows go to a file as they come.
private struct Output {
    let name: String
    let place: String
    private var writer: NpyWriter?
    private var row: Spec?

    init(_ name: String, at place: String) {
        self.name = name
        self.place = place
    }

    mutating func write(_ given: Spec, _ data: Data, of rows: Int) throws {
        if writer == nil {
            row = given.row
            writer = try NpyWriter(place, rows: rows, row: given.row)
        }
        guard given.row == row else {
            throw Failure(kind: "run", message: "the outputs differ in shape: \(shapeText(given.row.shape))")
        }
        try writer?.write(data)
    }

    func finish() throws { try writer?.finish() }
    func discard() { writer?.discard() }
}

extension Work {
    private static let tellNs: Int64 = 250_000_000  // between two lines of progress

    /// Runs each row of the inputs alone (batch 1) and saves the outputs as the model gives them.
    func infer(_ item: Case) throws {
        guard let from = item.inputs, let to = item.outputs else { return }  // Job has seen to that
        let peak = Peak(machine)
        let model = try load(item)
        let files = [from] + item.moreInputs
        let inputs = try item.order(ofInputs: model).map { try NpyReader(files[$0]) }
        let rows = try fitting(model, inputs.map(\.spec))
        var outputs = try item.wantedOutputs(of: model).enumerated().map { number, name in
            Output(name, at: number == 0 ? to : "\(to).\(number)")
        }
        var risen: Int?
        var told = clockNs()
        do {
            for index in 0..<rows {
                let values = try zip(inputs, model.inputs).map { reader, spec in try reader.read(spec.bytes) }
                try failing("input") { try model.set(values) }
                try run(model)
                if index <= job.runs {  // the same runs as a job that measures memory
                    risen = peak.rise(machine)
                }
                for number in outputs.indices {
                    let (given, data) = try failing("run") { try model.output(outputs[number].name) }
                    try outputs[number].write(given, data, of: rows)
                }
                if clockNs() - told > Work.tellNs || index + 1 == rows {
                    told = clockNs()
                    lines.send("progress", [("case", .text(item.id)), ("done", .whole(index + 1))])
                }
            }
            try outputs.forEach { try $0.finish() }
        } catch {
            outputs.forEach { $0.discard() }
            throw error
        }
        tell(item, outputs.map(\.place), rows, risen)
    }

    private func tell(_ item: Case, _ places: [String], _ rows: Int, _ risen: Int?) {
        let sums = places.map { fileDigest($0).map(Json.text) ?? .null }
        var members: [(String, Json)] = [
            ("case", .text(item.id)), ("file", .text(places[0])), ("count", .whole(rows)),
            ("peak_bytes", .told(risen)), ("sha256", sums[0]),
        ]
        if places.count > 1 {
            members.append(("more_files", .list(places.dropFirst().map(Json.text))))
            members.append(("more_sha256", .list(Array(sums.dropFirst()))))
        }
        lines.send("outputs", members)
    }

    /// How many rows the given arrays have, when they fit the model's inputs.
    private func fitting(_ model: Model, _ given: [Spec]) throws -> Int {
        let rows = given.first?.shape.first ?? 0
        for (number, (array, spec)) in zip(given, model.inputs).enumerated() {
            let fits = spec.shape.first == 1 && array.element == spec.element && array.shape.first ?? 0 > 0
            let which = given.count > 1 ? "input \(number + 1) of \(given.count)" : "the inputs"
            guard fits, array.shape.dropFirst() == spec.shape.dropFirst() else {
                let said = "\(which) \(given.count > 1 ? "is" : "are") \(array.element.rawValue) \(shapeText(array.shape))"
                let wanted = "\(spec.element.rawValue) \(shapeText(spec.shape))"
                throw Failure(kind: "input", message: "\(said), the file takes \(wanted)")
            }
            guard array.shape[0] == rows else {
                throw Failure(kind: "input", message: "\(which) has \(array.shape[0]) rows, input 1 \(rows)")
            }
        }
        return rows
    }
}
