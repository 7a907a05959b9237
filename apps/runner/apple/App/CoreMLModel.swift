import CoreML
import Foundation

/// A .mlpackage (packed, as it travels) in Core ML. It is compiled on the device when it is loaded.
final class CoreMLModel: Model {
    let inputs: [Spec]
    let inputNames: [String]
    let outputNames: [String]
    private let model: MLModel
    private let compiled: URL
    private var feed: MLDictionaryFeatureProvider
    private var answer: MLFeatureProvider?

    init(_ path: String, _ units: ComputeUnits) throws {
        let folder = NSTemporaryDirectory() + "edgeprune-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let package = try unpack(path, into: folder)
        compiled = try MLModel.compileModel(at: URL(fileURLWithPath: package))
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.coreML
        model = try MLModel(contentsOf: compiled, configuration: configuration)
        let entries = model.modelDescription.inputDescriptionsByName.sorted { $0.key < $1.key }
        inputNames = entries.map(\.key)
        inputs = try entries.map { try spec($0.key, $0.value) }
        outputNames = model.modelDescription.outputDescriptionsByName.keys.sorted()
        feed = try MLDictionaryFeatureProvider(dictionary: [:])
    }

    deinit {
        try? FileManager.default.removeItem(at: compiled)
    }

    func set(_ values: [Data]) throws {
        var features: [String: Any] = [:]
        for ((name, spec), value) in zip(zip(inputNames, inputs), values) {
            let shape = spec.shape.map { NSNumber(value: $0) }
            let array = try MLMultiArray(shape: shape, dataType: spec.element.coreML)
            array.withUnsafeMutableBytes { place, _ in place.copyBytes(from: value) }  // a new array's rows lie together
            features[name] = MLFeatureValue(multiArray: array)
        }
        feed = try MLDictionaryFeatureProvider(dictionary: features)
    }

    func run() throws {
        try autoreleasepool {
            answer = try model.prediction(from: feed)
        }
    }

    func output(_ name: String) throws -> (Spec, Data) {
        guard let array = answer?.featureValue(for: name)?.multiArrayValue else {
            throw Failure(kind: "run", message: "the output \(name) is no array")
        }
        let spec = Spec(element: try Element(array.dataType, name), shape: array.shape.map(\.intValue))
        let strides = array.strides.map(\.intValue)
        return (spec, array.withUnsafeBytes { packed($0, spec, strides: strides) })
    }
}

private func spec(_ name: String, _ description: MLFeatureDescription) throws -> Spec {
    guard let constraint = description.multiArrayConstraint, !constraint.shape.isEmpty else {
        throw Failure(kind: "load", message: "the input \(name) is no array of a known shape")
    }
    let element = try Element(constraint.dataType, name)
    return Spec(element: element, shape: constraint.shape.map(\.intValue))
}

extension Element {
    init(_ type: MLMultiArrayDataType, _ name: String) throws {
        switch type {
        case .float16: self = .float16
        case .float32: self = .float32
        case .double: self = .float64
        case .int32: self = .int32
        default:
            throw Failure(kind: "load", message: "\(name) has elements of type \(type.rawValue), which are not known here")
        }
    }

    var coreML: MLMultiArrayDataType {
        switch self {
        case .float16: return .float16
        case .float32: return .float32
        case .float64: return .double
        case .int32: return .int32
        }
    }
}

extension ComputeUnits {
    var coreML: MLComputeUnits {
        switch self {
        case .all: return .all
        case .cpuAndGPU: return .cpuAndGPU
        case .cpuAndNeuralEngine: return .cpuAndNeuralEngine
        case .cpuOnly: return .cpuOnly
        }
    }
}
