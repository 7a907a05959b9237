import Foundation

/// A case cannot be run; the job goes on with the next one. `kind` is "load", "input" or "run".
struct Failure: Error {
    let kind: String
    let message: String
}

/// The types of elements that Core ML's arrays have, by their names in numpy.
enum Element: String, CaseIterable {
    case float16, float32, float64, int32

    var bytes: Int {
        switch self {
        case .float16: return 2
        case .float32, .int32: return 4
        case .float64: return 8
        }
    }

    /// As .npy files have it.
    var npy: String {
        switch self {
        case .float16: return "<f2"
        case .float32: return "<f4"
        case .float64: return "<f8"
        case .int32: return "<i4"
        }
    }
}

/// Shape and type of a tensor.
struct Spec: Equatable {
    let element: Element
    let shape: [Int]

    var count: Int { shape.reduce(1, *) }
    var bytes: Int { count * element.bytes }

    /// Without a batch of 1 in front.
    var row: Spec { shape.first == 1 ? Spec(element: element, shape: Array(shape.dropFirst())) : self }
}

/// A shape as Python writes it.
func shapeText(_ shape: [Int]) -> String {
    "(" + shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? ",)" : ")")
}

/// The elements of an array in C order. The rows of a Core ML array may lie apart: `strides` are in elements.
func packed(_ source: UnsafeRawBufferPointer, _ spec: Spec, strides: [Int]) -> Data {
    var dense = [Int](repeating: 1, count: spec.shape.count)
    for axis in spec.shape.indices.dropLast().reversed() {
        dense[axis] = dense[axis + 1] * spec.shape[axis + 1]
    }
    if zip(spec.shape, zip(strides, dense)).allSatisfy({ $0 == 1 || $1.0 == $1.1 }) {
        return Data(source.prefix(spec.bytes))
    }
    var result = Data(capacity: spec.bytes)
    var index = [Int](repeating: 0, count: spec.shape.count)
    for _ in 0..<spec.count {
        let place = zip(index, strides).reduce(0) { $0 + $1.0 * $1.1 } * spec.element.bytes
        result.append(contentsOf: source[place..<place + spec.element.bytes])
        for axis in index.indices.reversed() {
            index[axis] += 1
            if index[axis] < spec.shape[axis] { break }
            index[axis] = 0
        }
    }
    return result
}
