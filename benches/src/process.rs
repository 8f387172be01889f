//! Children that do not outlive the benchmark, and what `/proc` knows of them.

use std::{
    fs,
    process::{self, ChildStdout, Command},
    time::Duration,
};

use crate::Failure;

/// Clock ticks a second in `/proc/<pid>/stat`: 100 on every Linux (`USER_HZ` is part of its interface).
const TICKS: u64 = 100;

/// A child that is ended when it is dropped.
pub(crate) struct Child(process::Child);

impl Child {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.spawn().map(Self).map_err(|error| format!("{program} cannot be started: {error}").into())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// User and system time of a process and all its threads so far, to 10 ms.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').ok_or("a stat without a name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Most memory that a process ever had resident, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("a status without VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// CPU time by process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) load: Duration,
    pub(crate) vendor: Duration,
    pub(crate) gateway: Duration,
}

impl Cpu {
    /// The time since `before`, for each of `calls`.
    pub(crate) fn since(&self, before: &Self, calls: usize) -> Self {
        let calls = u32::try_from(calls.max(1)).unwrap_or(u32::MAX);
        let each = |now: Duration, then: Duration| now.saturating_sub(then) / calls;
        Self {
            load: each(self.load, before.load),
            vendor: each(self.vendor, before.vendor),
            gateway: each(self.gateway, before.gateway),
        }
    }
}
