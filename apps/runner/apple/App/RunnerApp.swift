import SwiftUI
import UIKit

/// The app: runs the job whose path is its first argument, in its container (Documents/edgeprune/...), and ends.
@main
struct RunnerApp: App {
    private let job = CommandLine.arguments.dropFirst().first

    var body: some Scene {
        WindowGroup {
            Text(job.map { "Running \($0)" } ?? "This app is started by edgeprune, from a computer.")
                .padding()
                .onAppear { Session.shared.begin(job) }
        }
    }
}

/// One job from the first look of the app to its end. The screen stays on: what is in the background is suspended.
@MainActor
final class Session {
    static let shared = Session()

    private var begun = false
    private let stackBytes = 8 << 20  // a thread's own default is too small for some models' compilers

    func begin(_ job: String?) {
        guard let job, !begun else { return }
        begun = true
        UIApplication.shared.isIdleTimerDisabled = true
        UIDevice.current.isBatteryMonitoringEnabled = true
        endInBackground()
        _ = FileManager.default.changeCurrentDirectoryPath(NSHomeDirectory())
        let thread = Thread { exit(runJob(job, on: Phone())) }
        thread.stackSize = stackBytes
        thread.qualityOfService = .userInteractive  // the performance cores
        thread.start()
    }

    /// A job that is not on the screen would stand still, and its times would hold the pause.
    private func endInBackground() {
        let left = UIApplication.didEnterBackgroundNotification
        _ = NotificationCenter.default.addObserver(forName: left, object: nil, queue: .main) { _ in
            fputs("the app left the screen: keep the phone unlocked and open nothing else while it measures\n", stderr)
            exit(6)
        }
    }
}
