import Foundation

extension Work {
    private static let dayS = 24 * 3600.0
    private static let monthS = 30 * dayS

    /// The mode "files", for a host whose tools cannot do this in an app's container: removes what `remove` names,
    /// answers the checksums of what `sums` names (nothing for what is not there) and what is left on the disk.
    /// What was sent long ago goes, too, in the folder beside the job's own.
    ///
    ///     sum     path, sha256
    ///     free    bytes
    func files(in folder: String) {
        for path in job.remove.flatMap(Work.named) {
            try? FileManager.default.removeItem(atPath: path)
        }
        forgetOld(folder)
        for path in job.sums {
            if let sum = fileDigest(path) {
                lines.send("sum", [("path", .text(path)), ("sha256", .text(sum))])
            }
        }
        lines.send("free", [("bytes", .told(machine.freeBytes()))])
    }

    /// A path, or all whose names begin so where it ends with a star.
    private static func named(_ path: String) -> [String] {
        guard path.hasSuffix("*") else { return [path] }
        let parts = path.dropLast().split(separator: "/", omittingEmptySubsequences: false)
        let folder = parts.dropLast().joined(separator: "/")
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: folder.isEmpty ? "." : folder)) ?? []
        let begun = entries.filter { $0.hasPrefix(parts.last.map(String.init) ?? "") }
        return begun.map { folder.isEmpty ? $0 : folder + "/" + $0 }
    }

    private func forgetOld(_ folder: String) {
        for (name, age) in [("files", Work.dayS), ("inputs", Work.dayS), ("models", Work.monthS), ("jobs", Work.monthS)] {
            let place = folder + "/" + name
            for entry in (try? FileManager.default.contentsOfDirectory(atPath: place)) ?? [] {
                let path = place + "/" + entry
                let facts = try? FileManager.default.attributesOfItem(atPath: path)
                if let made = facts?[.modificationDate] as? Date, -made.timeIntervalSinceNow > age {
                    try? FileManager.default.removeItem(atPath: path)
                }
            }
        }
    }
}
