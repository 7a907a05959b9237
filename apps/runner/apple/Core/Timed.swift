import Foundation

/// What is known of a case between its rounds.
private struct Kept {
    var model: Model?
    var batch = 1
    var failed = false
}

extension Work {
    private static let watchNs: Int64 = 1_000_000_000  // between two looks at the conditions

    /// Visits the cases; loaded models are kept between rounds, or loaded anew each time.
    func timeCases(_ timing: Timing) {
        var kept = [Kept](repeating: Kept(), count: job.cases.count)
        var watched = clockNs()
        for place in visits(timing, firstRounds: job.cases.map(\.firstRound)) where !kept[place.index].failed {
            let item = job.cases[place.index]
            if clockNs() - watched >= Work.watchNs {
                conditions("during")
                watched = clockNs()
            }
            begin(item, round: place.round)
            do {
                try visit(item, place.round, timing, &kept[place.index])
            } catch {
                kept[place.index].failed = true
                fail(item, error as? Failure ?? Failure(kind: "run", message: error.localizedDescription))
            }
            if kept[place.index].failed || !timing.keepLoaded {
                kept[place.index].model = nil
            }
        }
    }

    private func visit(_ item: Case, _ round: Int, _ timing: Timing, _ kept: inout Kept) throws {
        let model: Model
        if let loaded = kept.model {
            model = loaded
        } else {
            model = try prepared(item)
            kept.batch = try warmUp(model, item, timing)
            kept.model = model
        }
        try run(model)  // to bring the caches back
        let times = try failing("run") { try samples(model, timing, kept.batch) }
        let seconds = times.map { Json.number((Double($0) / Double(kept.batch) * 100).rounded() / 100 / 1e9) }
        lines.send("samples", [
            ("case", .text(item.id)), ("round", .whole(round)), ("seconds", .list(seconds)),
            ("runs_per_sample", .whole(kept.batch)), ("preempted", .list([])), ("steal_s", .null),
        ])
    }

    /// Runs until the limits are met and the latency is steady; returns how many runs make a sample.
    private func warmUp(_ model: Model, _ item: Case, _ timing: Timing) throws -> Int {
        var times: [Int64] = []
        var look = 0  // at so many runs the trend is looked at: rarely where they are many, for looking takes time too
        let start = clockNs()
        try failing("run") {
            while true {
                let passed = Double(clockNs() - start) / 1e9
                if times.count >= timing.warmUpRuns && passed >= timing.warmUpS {
                    if timing.steady <= 0 || passed >= timing.warmUpMostS { break }
                    if times.count >= look {
                        if isSteady(times, timing.steady) { break }
                        look = times.count + 1 + times.count / 64
                    }
                }
                let begin = clockNs()
                try model.run()
                times.append(clockNs() - begin)
            }
        }
        let passed = Double(clockNs() - start) / 1e9
        let steady: Json = timing.steady <= 0 ? .null : .flag(isSteady(times, timing.steady))
        lines.send("warm", [
            ("case", .text(item.id)), ("runs", .whole(times.count)),
            ("seconds", .number((passed * 1e3).rounded() / 1e3)), ("steady", steady),
        ])
        let typical = Double(max(middle(times.suffix(times.count - times.count / 2)), 1))
        let expected = max(Double(timing.minRuns), timing.minS * 1e9 / typical)
        return max(1, Int((expected / Double(timing.maxSamples)).rounded(.up)))
    }

    /// Nanoseconds of samples of `batch` runs each, up to both limits.
    private func samples(_ model: Model, _ timing: Timing, _ batch: Int) throws -> [Int64] {
        var times: [Int64] = []
        let start = clockNs()
        while true {
            let begin = clockNs()
            for _ in 0..<batch {
                try model.run()
            }
            let end = clockNs()
            times.append(end - begin)
            let enough = Double(end - start) >= timing.minS * 1e9 || times.count >= timing.maxSamples
            if enough && times.count * batch >= timing.minRuns {
                return times
            }
        }
    }
}

/// Whether the medians of the last two quarters agree to this share; of fewer than 16 runs nobody can tell.
func isSteady(_ times: [Int64], _ share: Double) -> Bool {
    let quarter = times.count / 4
    guard quarter >= 4 else { return false }
    let third = middle(times.dropLast(quarter).suffix(quarter)), last = middle(times.suffix(quarter))
    return Double(abs(last - third)) <= share * Double(third)
}

private func middle(_ times: ArraySlice<Int64>) -> Int64 {
    times.isEmpty ? 1 : times.sorted()[times.count / 2]
}
