import Foundation

/// The rows of a .npy file (numpy's format 1 to 3) in C order. Anything else is a Failure of its case.
struct NpyReader {
    let spec: Spec  // of the whole array
    private let file: FileHandle
    private static let mostHeader = 1 << 20

    init(_ path: String) throws {
        guard let opened = FileHandle(forReadingAtPath: path) else {
            throw Failure(kind: "input", message: "cannot open the inputs \(path): No such file or directory")
        }
        file = opened
        let head = try NpyReader.bytes(opened, 10, "no header of version 1, 2 or 3")
        guard head.prefix(6) == Data([0x93] + "NUMPY".utf8), (1...3).contains(head[6]) else {
            throw NpyReader.unreadable("no header of version 1, 2 or 3")
        }
        var length = Int(head[8]) | Int(head[9]) << 8  // two bytes in version 1, four later on
        if head[6] > 1 {
            let more = try NpyReader.bytes(opened, 2, "it ends in its header")
            length |= Int(more[0]) << 16 | Int(more[1]) << 24
        }
        guard length <= NpyReader.mostHeader else {
            throw NpyReader.unreadable("its header is too long")
        }
        let header = String(decoding: try NpyReader.bytes(opened, length, "it ends in its header"), as: UTF8.self)
        spec = try NpyReader.parsed(header)
    }

    /// The next row, or rows.
    func read(_ bytes: Int) throws -> Data {
        try NpyReader.bytes(file, bytes, "it ends before its last row")
    }

    private static func parsed(_ header: String) throws -> Spec {
        guard let descr = value("descr", header), let quote = descr.first, quote == "'" || quote == "\"" else {
            throw unreadable("its elements are not of one simple type")
        }
        let type = String(descr.dropFirst().prefix(while: { $0 != quote }))
        guard let element = Element.allCases.first(where: { $0.npy == type }) else {
            throw Failure(kind: "input", message: "the inputs are \(type), which no array of Core ML is")
        }
        guard let shape = value("shape", header), shape.first == "(", let end = shape.firstIndex(of: ")") else {
            throw unreadable("it has no shape")
        }
        let inside = shape[shape.index(after: shape.startIndex)..<end]
        let numbers = inside.split(whereSeparator: { $0 == "," || $0 == " " }).map { Int($0) ?? -1 }
        guard numbers.allSatisfy({ $0 >= 0 }) else {
            throw unreadable("it has no shape")
        }
        guard let order = value("fortran_order", header), order.hasPrefix("False") || numbers.count < 2 else {
            throw unreadable("it is not in C order")
        }
        return Spec(element: element, shape: numbers)
    }

    /// What follows `'key':` in the header's dictionary.
    private static func value(_ key: String, _ header: String) -> Substring? {
        guard let at = header.range(of: "'\(key)'") else { return nil }
        let rest = header[at.upperBound...].drop(while: { $0 == " " })
        return rest.first == ":" ? rest.dropFirst().drop(while: { $0 == " " }) : nil
    }

    private static func bytes(_ file: FileHandle, _ count: Int, _ otherwise: String) throws -> Data {
        guard count > 0 else { return Data() }
        guard let data = try? file.read(upToCount: count), data.count == count else {
            throw unreadable(otherwise)
        }
        return Data(data)  // its indices begin at 0
    }

    private static func unreadable(_ why: String) -> Failure {
        Failure(kind: "input", message: "the inputs are no .npy file that can be read: \(why)")
    }
}

/// Writes beside its place, and moves there when it is whole.
final class NpyWriter {
    private let place: String
    private let file: FileHandle
    private var partial: String { place + ".partial" }

    init(_ place: String, rows: Int, row: Spec) throws {
        self.place = place
        let shape = shapeText([rows] + row.shape)
        var header = "{'descr': '\(row.element.npy)', 'fortran_order': False, 'shape': \(shape), }"
        let used = 10 + header.utf8.count + 1  // with the last line end
        header += String(repeating: " ", count: (64 - used % 64) % 64) + "\n"
        let length = UInt16(header.utf8.count)
        let head = Data([0x93] + "NUMPY".utf8 + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)]) + Data(header.utf8)
        guard FileManager.default.createFile(atPath: place + ".partial", contents: head),
            let opened = FileHandle(forWritingAtPath: place + ".partial")
        else {
            throw Failure(kind: "run", message: "cannot write the outputs \(place)")
        }
        file = opened
        try file.seekToEnd()
    }

    func write(_ row: Data) throws {
        try file.write(contentsOf: row)
    }

    func finish() throws {
        try file.close()
        if rename(partial, place) != 0 {
            throw Failure(kind: "run", message: "cannot write the outputs \(place): \(String(cString: strerror(errno)))")
        }
    }

    func discard() {
        try? file.close()
        unlink(partial)
    }
}
