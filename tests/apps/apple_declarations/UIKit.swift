// What the app uses of UIKit, declared after Apple's documentation so that a compiler without Apple's SDK can look at the
// app's files. Nothing here does anything.
@_exported import Foundation

@MainActor open class UIDevice: NSObject {
    public enum BatteryState: Int, Sendable { case unknown, unplugged, charging, full }
    public class var current: UIDevice { fatalError() }
    public var batteryLevel: Float { 0 }
    public var batteryState: BatteryState { .full }
    public var isBatteryMonitoringEnabled = false
}

@MainActor open class UIApplication: NSObject {
    public class var shared: UIApplication { fatalError() }
    public var isIdleTimerDisabled = false
    public nonisolated class var didEnterBackgroundNotification: NSNotification.Name { NSNotification.Name("background") }
}
