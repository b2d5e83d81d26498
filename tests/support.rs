//! A home in a temporary folder, the binary, and the helpers written in Python.

pub mod kafka;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const AMELES: &str = env!("CARGO_BIN_EXE_ameles");

/// A disk that can be filled; unmounted when dropped, which has to come before its folder goes.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Gives back what was filled.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _still_in_use = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A home with its journal and key beside it, all in one temporary folder.
pub struct Home {
    pub folder: TempDir,
}

impl Home {
    /// Made by `ameles init`.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// Made by `ameles init` with more arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        home.ok(&[&["init"], arguments].concat());
        home
    }

    /// Made on a disk of its own of so many MiB; `None` where this process may not mount one.
    pub fn on_small_disk(mib: u32) -> Option<(Self, SmallDisk)> {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(home.path()).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path()).output().unwrap();
        if !mounted.status.success() {
            eprintln!("no small disk: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        let disk = SmallDisk(home.path());
        home.ok(&["init"]);
        Some((home, disk))
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// A file in the folder around the home.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(AMELES);
        command.arg("--home").arg(self.path()).args(arguments).env_remove("AMELES_HOME");
        // Replaced files are spared for a second, not a minute: no other reader is about.
        command.env("TMPDIR", self.folder.path()).env("AMELES__ERASURE__PURGE_GRACE_S", "1");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// With text on standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that refuses before it reads closes the pipe: its exit code tells.
        let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Runs, must succeed, and returns standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        succeeded(self.run(arguments), arguments)
    }

    pub fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        succeeded(self.run_with(arguments, input), arguments)
    }

    /// Runs with `--json` and reads the object.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {out:?}"))
    }

    pub fn ingest(&self, path: &Path) -> Value {
        self.json(&["ingest", path.to_str().unwrap()])
    }

    /// The value of a metric's only row.
    pub fn metric_rows(&self, arguments: &[&str]) -> Vec<Vec<String>> {
        let out = self.ok(&[&["metric"], arguments, &["--k", "1", "--format", "csv"]].concat());
        out.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    /// Starts `serve` on a free port and waits until it is ready.
    pub fn serve(&self) -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(self.folder.path().join("serve.log")).unwrap();
        let child = self
            .command(&["serve", "--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Server { child, base: format!("http://127.0.0.1:{port}") };
        for _ in 0..200 {
            if ureq::get(format!("{}/readyz", server.base)).call().is_ok() {
                return server;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("not ready: {}", std::fs::read_to_string(self.folder.path().join("serve.log")).unwrap());
    }

    /// Every file under the temporary folder, but the inputs of the test.
    pub fn all_files(&self, except: &[&str]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !except.iter().any(|name| path.ends_with(name)) {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// A running `ameles serve`, killed when dropped.
pub struct Server {
    pub child: Child,
    pub base: String,
}

impl Server {
    /// `127.0.0.1` and the port.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    /// Asks it to stop, as a service manager does, and expects it to end well.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "serve ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

pub fn succeeded(output: Output, what: &[&str]) -> String {
    assert!(output.status.success(), "{what:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The Python with duckdb and deltalake that `make test` installs. Without it
/// (plain `cargo test` on a bare machine) the tests that need it say so and pass.
pub fn python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("AMELES_TEST_PYTHON") {
        return Some(path.into());
    }
    let found = Command::new("python3").args(["-c", "import duckdb, deltalake, pyarrow"]).output().is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("no Python with duckdb, deltalake and pyarrow: `make test` installs one");
    }
    found.then(|| PathBuf::from("python3"))
}

/// The project's folder: of the clone that is tested, not of the one that was compiled, should they share a build.
pub fn project() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap().into()
}

/// Runs a script of `tests/python`, which must succeed.
pub fn script(python: &Path, name: &str, arguments: &[&str]) -> String {
    let path = project().join("tests/python").join(name);
    let output = Command::new(python).arg(path).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap();
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A valid event of the default contract.
pub fn event(id: u64, device: &str, user: Option<&str>, kind: &str, ts: &str) -> String {
    let user = user.map_or("null".to_owned(), |user| format!("\"{user}\""));
    // No two events are equal in every column: a reopened month takes equal rows for repeats.
    let latency = id % 100_000;
    format!(
        "{{\"event_id\":\"e-{id:012}\",\"device_id\":\"{device}\",\"user_id\":{user},\"type\":\"{kind}\",\"ts\":\"{ts}\",\
         \"product\":\"speaker\",\"model\":\"m0794\",\"partner\":\"p179\",\"country\":\"DE\",\"firmware\":\"1.1.16\",\
         \"consent\":{{\"policy\":\"2018-05-25\",\"purposes\":[\"analytics\"]}},\"ip\":\"203.0.113.24\",\"mac\":\"38:a7:51:11:30:0e\",\
         \"props\":{{\"latency_ms\":{latency},\"room\":\"kitchen\"}}}}\n"
    )
}

/// A small fleet by the binary's own simulator, as one file.
pub fn simulated(home: &Home, name: &str, devices: u32, more: &[&str]) -> PathBuf {
    let path = home.folder.path().join(name);
    let devices = devices.to_string();
    let arguments = [&["simulate", "--devices", &devices, "-o", path.to_str().unwrap()], more].concat();
    succeeded(home.run(&arguments), &arguments);
    path
}
