// What the app uses of Core ML, and of Darwin (which has no module here), declared after Apple's documentation so that a
// compiler without Apple's SDK can look at the app's files. Nothing here does anything.
@_exported import Foundation

public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias kern_return_t = Int32
public typealias mach_msg_type_number_t = UInt32
public typealias task_flavor_t = UInt32
public let KERN_SUCCESS: Int32 = 0
public let TASK_VM_INFO: Int32 = 22
public let mach_task_self_: UInt32 = 0

public struct task_vm_info_data_t {
    public var phys_footprint: UInt64 = 0
    public var ledger_phys_footprint_peak: Int64 = 0
    public init() {}
}

public func task_info(
    _ task: UInt32, _ flavor: task_flavor_t, _ info: UnsafeMutablePointer<integer_t>!,
    _ count: UnsafeMutablePointer<mach_msg_type_number_t>!
) -> kern_return_t { 0 }

public struct clock_kind { public init() {} }
public let CLOCK_PROCESS_CPUTIME_ID = clock_kind()
public func clock_gettime_nsec_np(_ clock: clock_kind) -> UInt64 { 0 }

public func sysctlbyname(
    _ name: UnsafePointer<CChar>!, _ old: UnsafeMutableRawPointer!, _ size: UnsafeMutablePointer<Int>!,
    _ new: UnsafeMutableRawPointer!, _ length: Int
) -> Int32 { 0 }

public func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result { try body() }

extension ProcessInfo {
    public enum ThermalState: Int { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { .nominal }
    public var isLowPowerModeEnabled: Bool { false }
}

public enum MLMultiArrayDataType: Int {
    case double = 65600
    case float32 = 65568
    case float16 = 65552
    case int32 = 131104
    case int8 = 131080
}

public enum MLComputeUnits: Int { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

open class MLModelConfiguration: NSObject {
    public var computeUnits: MLComputeUnits = .all
    public override init() {}
}

open class MLMultiArray: NSObject {
    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {}
    public var dataType: MLMultiArrayDataType { .float32 }
    public var shape: [NSNumber] { [] }
    public var strides: [NSNumber] { [] }
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(start: nil, count: 0))
    }
    public func withUnsafeMutableBytes<R>(_ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R) rethrows -> R {
        try body(UnsafeMutableRawBufferPointer(start: nil, count: 0), [])
    }
}

open class MLFeatureValue: NSObject {
    public init(multiArray: MLMultiArray) {}
    public var multiArrayValue: MLMultiArray? { nil }
}

public protocol MLFeatureProvider { func featureValue(for featureName: String) -> MLFeatureValue? }

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    public func featureValue(for featureName: String) -> MLFeatureValue? { nil }
}

open class MLMultiArrayConstraint: NSObject {
    public var shape: [NSNumber] { [] }
    public var dataType: MLMultiArrayDataType { .float32 }
}

open class MLFeatureDescription: NSObject { public var multiArrayConstraint: MLMultiArrayConstraint? { nil } }

open class MLModelDescription: NSObject {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { [:] }
    public var outputDescriptionsByName: [String: MLFeatureDescription] { [:] }
}

open class MLModel: NSObject {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {}
    public class func compileModel(at modelURL: URL) throws -> URL { modelURL }
    public class func compileModel(at modelURL: URL) async throws -> URL { modelURL }
    public var modelDescription: MLModelDescription { MLModelDescription() }
    public func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider { input }
    public func prediction(from input: MLFeatureProvider) async throws -> MLFeatureProvider { input }
}
