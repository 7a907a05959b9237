import CoreML
import Foundation
import UIKit

/// The iPhone or iPad that the app runs on.
struct Phone: Machine {
    /// Core ML is a part of the system and has no file of its own: its build is the system's.
    var build: [(String, Json)] {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        let numbers = "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
        let system = kernel("kern.osversion")
        var digest = Digest()
        digest.add(Data("Core ML of \(numbers) \(system)".utf8))
        return [
            ("version", .text(numbers)), ("library", .text("CoreML.framework")), ("sha256", .text(digest.finish())),
            ("system", .text(system)), ("model", .text(kernel("hw.machine"))),
            ("memory_bytes", .whole(Int(ProcessInfo.processInfo.physicalMemory))),
        ]
    }

    func load(_ path: String, _ units: ComputeUnits) throws -> Model {
        try CoreMLModel(path, units)
    }

    /// As runner_conditions.py tells them; load, clock and temperature are no app's to know.
    func conditions() -> [(String, Json)] {
        let process = ProcessInfo.processInfo
        let battery = DispatchQueue.main.sync {
            MainActor.assumeIsolated { (UIDevice.current.batteryLevel, UIDevice.current.batteryState.rawValue) }
        }
        return [
            ("time", .number(Date().timeIntervalSince1970)), ("clock_s", .number(Double(clockNs()) / 1e9)),
            ("load_1min", .null), ("running", .null), ("cpu_steal_s", .null), ("cpu_busy_s", .null),
            ("cpus", .whole(process.processorCount)),
            ("own_s", .number(Double(clock_gettime_nsec_np(CLOCK_PROCESS_CPUTIME_ID)) / 1e9)),
            ("frequency_mhz", .list([])), ("temperature_c", .object([:])),
            ("battery_percent", .told(battery.0 < 0 ? nil : Int((battery.0 * 100).rounded()))),
            ("charging", battery.1 == 0 ? .null : .flag(battery.1 >= 2)),  // unknown, unplugged, charging, full
            ("screen_on", .flag(true)), ("thermal_status", .whole(thermalStatus(process.thermalState))),
            ("low_power", .flag(process.isLowPowerModeEnabled)),
        ]
    }

    func footprint() -> Footprint? {
        var info = task_vm_info_data_t()
        let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
        var count = mach_msg_type_number_t(words)
        let answer = withUnsafeMutablePointer(to: &info) { place in
            place.withMemoryRebound(to: integer_t.self, capacity: words) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        guard answer == KERN_SUCCESS else { return nil }
        return Footprint(now: Int(info.phys_footprint), peak: Int(info.ledger_phys_footprint_peak))
    }

    func freeBytes() -> Int? {
        let home = URL(fileURLWithPath: NSHomeDirectory())
        return try? home.resourceValues(forKeys: [.volumeAvailableCapacityKey]).volumeAvailableCapacity
    }

    /// By Android's numbers: 0 none, 1 light, 3 severe, 4 critical. At "serious" the system lowers the clock.
    private func thermalStatus(_ state: ProcessInfo.ThermalState) -> Int {
        switch state {
        case .nominal: return 0
        case .fair: return 1
        case .serious: return 3
        default: return 4
        }
    }

    private func kernel(_ name: String) -> String {
        var size = 0
        guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 0 else { return "" }
        var bytes = [UInt8](repeating: 0, count: size)
        guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return "" }
        return String(decoding: bytes.prefix(while: { $0 != 0 }), as: UTF8.self)
    }
}
