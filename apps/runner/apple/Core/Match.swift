/// Which of a model's inputs and outputs a case means. Core ML gives them names and no order.
extension Case {
    /// For each input of the model, the number of the case's own that goes into it.
    func order(ofInputs model: Model) throws -> [Int] {
        let given = 1 + moreInputs.count, takes = model.inputs.count
        guard given == takes else {
            throw Failure(kind: "input", message: "the file takes \(takes) inputs, and \(given) were given")
        }
        if let names = inputNames, names.count != given {
            throw Failure(kind: "input", message: "\(given) inputs were given, and \(names.count) names")
        }
        let names = try matched("input", inputNames, among: model.inputNames)
        return model.inputNames.compactMap { names.firstIndex(of: $0) }
    }

    /// The names of the outputs that are wanted, in the order in which they are.
    func wantedOutputs(of model: Model) throws -> [String] {
        guard !model.outputNames.isEmpty else {
            throw Failure(kind: "load", message: "the file has no output")
        }
        return try matched("output", outputNames, among: model.outputNames)
    }

    private func matched(_ kind: String, _ wanted: [String]?, among known: [String]) throws -> [String] {
        guard let wanted else {
            guard known.count == 1 else {
                let message = "the file has \(known.count) \(kind)s and gives them no order: name them"
                throw Failure(kind: "input", message: message)
            }
            return known
        }
        var left = known
        for name in wanted {
            guard let place = left.firstIndex(of: name) else {
                let message = "the file has no \(kind) \(name); it has \(known.joined(separator: ", "))"
                throw Failure(kind: "input", message: message)
            }
            left.remove(at: place)
        }
        return wanted
    }
}
