// What the app uses of SwiftUI, declared after Apple's documentation so that a compiler without Apple's SDK can look at
// the app's files. Nothing here does anything.
@_exported import Foundation

@MainActor public protocol View {}
public protocol Scene {}

@resultBuilder public struct ViewBuilder { public static func buildBlock<Content: View>(_ content: Content) -> Content { content } }
@resultBuilder public struct SceneBuilder { public static func buildBlock<Content: Scene>(_ content: Content) -> Content { content } }

@MainActor public protocol App {
    associatedtype Body: Scene
    @SceneBuilder @MainActor var body: Body { get }
    @MainActor init()
}

extension App { @MainActor public static func main() {} }

public struct WindowGroup<Content: View>: Scene { public init(@ViewBuilder content: () -> Content) {} }
public struct Text: View { public init(_ content: String) {} }
public struct Changed: View {}

extension View {
    public func padding() -> Changed { Changed() }
    public func onAppear(perform action: (() -> Void)? = nil) -> Changed { Changed() }
}
