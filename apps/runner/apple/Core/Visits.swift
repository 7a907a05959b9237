/// One visit of a case in a round.
struct Visit: Equatable {
    let index: Int
    let round: Int
}

/// All visits of a job, one after the other, in the order of runner/native/schedule.c.
func visits(_ timing: Timing, firstRounds: [Int]) -> [Visit] {
    let cases = firstRounds.indices
    if timing.schedule == .sequential {
        return cases.flatMap { index in
            stride(from: firstRounds[index], to: timing.rounds, by: 1).map { Visit(index: index, round: $0) }
        }
    }
    var random = Random(seed: timing.seed)
    var found: [Visit] = []
    for round in 0..<max(0, timing.rounds) {
        var order = Array(cases)
        if timing.schedule == .mirrored, round % 2 == 1 {
            order.reverse()
        }
        if timing.schedule == .shuffled {  // Fisher and Yates
            for last in stride(from: order.count, to: 1, by: -1) {
                order.swapAt(last - 1, random.below(last))
            }
        }
        found += order.filter { round >= firstRounds[$0] }.map { Visit(index: $0, round: round) }
    }
    return found
}
