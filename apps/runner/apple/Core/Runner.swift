import Foundation

/// Runs a job and returns the exit code: 0 done (with cases that failed, perhaps), 2 no job, 3 no such runtime,
/// 4 not these cores; 5 is for a console that nobody reads any more.
///
/// The job and the lines are those of apps/runner/python_runner.py, whose head describes them. Besides:
///
///     compute_units   of the job: ALL (without it), CPU_AND_GPU, CPU_AND_NE or CPU_ONLY
///     outputs         sha256 of the file, besides; more_sha256 of more_files
///     exit            code, message: the last line always, for a console does not tell how an app ended
///
/// The lines also go into a file beside the job's, with `.lines` after its name.
func runJob(_ path: String, on machine: Machine) -> Int32 {
    let lines = Lines(file: path + ".lines")
    let (code, message) = answered(path, machine, lines)
    lines.send("exit", [("code", .whole(Int(code))), ("message", .text(message))])
    return code
}

private func answered(_ path: String, _ machine: Machine, _ lines: Lines) -> (Int32, String) {
    let job: Job
    do {
        job = try Job.read(path)
    } catch let error as BadJob {
        return (2, "\(path): \(error.why)")
    } catch {
        return (2, "\(path): \(error.localizedDescription)")
    }
    guard job.runtime == "coreml" else {
        return (3, "the runtime \(job.runtime) is not installed here: this app has coreml")
    }
    if let cores = job.cores {
        return (4, "cannot run on the cores \(cores): iOS lets no app choose")
    }
    let work = Work(job: job, machine: machine, lines: lines)
    let start: [(String, Json)] = [
        ("runtime", .text(job.runtime)), ("threads", .whole(job.threads)), ("cores", .list([])), ("python", .null),
        ("runner", .text("app")), ("compute_units", .text(job.units.rawValue)),
    ]
    lines.send("start", start + machine.build)
    work.conditions("before")
    if job.mode == .files {
        let jobs = (path as NSString).deletingLastPathComponent  // work folder/files/job
        work.files(in: (jobs as NSString).deletingLastPathComponent)
    } else if let timing = job.timing {
        work.timeCases(timing)
    } else {
        work.oneByOne()
    }
    work.conditions("after")
    lines.send("end")
    return (0, "")
}
