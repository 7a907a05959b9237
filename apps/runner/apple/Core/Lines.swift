import Foundation

/// A JSON value as it is written.
enum Json {
    case null
    case flag(Bool)
    case whole(Int)
    case number(Double)  // null where it is not finite
    case text(String)
    case list([Json])
    case object([String: Json])

    static func told(_ value: Int?) -> Json { value.map(Json.whole) ?? .null }
    static func told(_ value: Double?) -> Json { value.map(Json.number) ?? .null }

    /// In ASCII, on one line.
    var written: String {
        switch self {
        case .null: return "null"
        case .flag(let value): return value ? "true" : "false"
        case .whole(let value): return String(value)
        case .number(let value): return value.isFinite ? String(value) : "null"
        case .text(let value): return Json.quoted(value)
        case .list(let values): return "[" + values.map(\.written).joined(separator: ", ") + "]"
        case .object(let members): return Json.written(members.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
        }
    }

    /// An object whose members keep their order.
    static func written(_ members: [(String, Json)]) -> String {
        "{" + members.map { quoted($0.0) + ": " + $0.1.written }.joined(separator: ", ") + "}"
    }

    private static func quoted(_ text: String) -> String {
        var line = "\""
        for unit in text.utf16 {
            switch unit {
            case 0x22, 0x5C: line += "\\" + String(UnicodeScalar(UInt8(unit)))
            case 0x20..<0x7F: line += String(UnicodeScalar(UInt8(unit)))
            default: line += "\\u" + String(repeating: "0", count: 4 - String(unit, radix: 16).count) + String(unit, radix: 16)
            }
        }
        return line + "\""
    }
}

/// The lines that the runner answers: to stdout, each with its number, for what others write on a console gets between
/// them; and to a file, without, for a console is not always at hand and may lose some.
final class Lines {
    static let mark = "@edgeprune"
    static let nobodyReads: Int32 = 5

    private let file: FileHandle?
    private var count = 0

    /// `file` is begun anew.
    init(file path: String) {
        signal(SIGPIPE, SIG_IGN)  // a closed stdout is then an error of write()
        _ = FileManager.default.createFile(atPath: path, contents: nil)  // without it the console still tells
        file = FileHandle(forWritingAtPath: path)
    }

    func send(_ event: String, _ members: [(String, Json)] = []) {
        let line = Json.written([("event", .text(event))] + members)
        try? file?.write(contentsOf: Data((line + "\n").utf8))  // a full disk shows on the console
        toConsole("\(Lines.mark) \(count) \(line)\n")
        count += 1
    }

    private func toConsole(_ line: String) {
        let bytes = Array(line.utf8)
        var done = 0
        while done < bytes.count {
            let wrote = bytes.withUnsafeBytes { write(1, $0.baseAddress! + done, bytes.count - done) }
            if wrote >= 0 {
                done += wrote
            } else if errno != EINTR {
                exit(Lines.nobodyReads)  // the host is gone: to go on would only heat the device
            }
        }
    }
}
