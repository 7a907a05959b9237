import Foundation

/// A Core ML package as it travels: a zip file whose entries are stored as they are (edgeprune.devices.cargo.pack).
/// Unpacks it into `folder` and returns the one folder that lies in it.
func unpack(_ archive: String, into folder: String) throws -> String {
    guard let data = FileManager.default.contents(atPath: archive) else {
        throw Failure(kind: "load", message: "No such file or directory: \(archive)")
    }
    var tops: Set<String> = []
    for entry in try entries(of: Bytes(data: data)) {
        let parts = entry.name.split(separator: "/", omittingEmptySubsequences: false)
        guard !parts.contains(".."), !parts.contains(""), parts.count > 1 else {
            throw damaged("the name \(entry.name)")
        }
        tops.insert(String(parts[0]))
        let place = folder + "/" + entry.name
        let parent = (place as NSString).deletingLastPathComponent
        try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
        try entry.content.write(to: URL(fileURLWithPath: place))
    }
    guard tops.count == 1, let top = tops.first else {
        throw damaged("it holds \(tops.count) folders")
    }
    return folder + "/" + top
}

private struct Entry {
    let name: String
    let content: Data
}

/// Little-endian numbers out of bytes; nil beyond their end.
private struct Bytes {
    let data: Data

    func number(_ at: Int, _ size: Int) -> Int? {
        guard at >= 0, at + size <= data.count else { return nil }
        return (0..<size).reversed().reduce(0) { $0 << 8 | Int(data[data.startIndex + at + $1]) }
    }

    func piece(_ at: Int, _ size: Int) -> Data? {
        guard at >= 0, size >= 0, at + size <= data.count else { return nil }
        return data.subdata(in: data.startIndex + at..<data.startIndex + at + size)
    }
}

/// By the directory at the file's end (PKWARE's APPNOTE, 4.3.12 and 4.3.16).
private func entries(of bytes: Bytes) throws -> [Entry] {
    let least = 22, longestComment = 0xFFFF
    let last = bytes.data.count - least
    guard last >= 0,
        let end = stride(from: last, through: max(0, last - longestComment), by: -1).first(where: {
            bytes.number($0, 4) == 0x0605_4B50
        }), let count = bytes.number(end + 10, 2), var at = bytes.number(end + 16, 4)
    else {
        throw damaged("it has no directory")
    }
    var found: [Entry] = []
    for _ in 0..<count {
        guard bytes.number(at, 4) == 0x0201_4B50, let method = bytes.number(at + 10, 2),
            let size = bytes.number(at + 24, 4), let nameLength = bytes.number(at + 28, 2),
            let extra = bytes.number(at + 30, 2), let comment = bytes.number(at + 32, 2),
            let local = bytes.number(at + 42, 4), let name = bytes.piece(at + 46, nameLength)
        else {
            throw damaged("its directory")
        }
        guard method == 0 else {
            throw damaged("an entry is compressed")
        }
        guard bytes.number(local, 4) == 0x0403_4B50, let localName = bytes.number(local + 26, 2),
            let localExtra = bytes.number(local + 28, 2),
            let content = bytes.piece(local + 30 + localName + localExtra, size)
        else {
            throw damaged("an entry is cut off")
        }
        found.append(Entry(name: String(decoding: name, as: UTF8.self), content: content))
        at += 46 + nameLength + extra + comment
    }
    return found
}

private func damaged(_ what: String) -> Failure {
    Failure(kind: "load", message: "the packed model cannot be unpacked: \(what)")
}
