//! A real Apache Kafka on loopback, topics and messages in it, and servers that read them.
//!
//! `AMELES_TEST_KAFKA=host:port` uses one that runs already.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tempfile::TempDir;

use super::Home;

/// Everything that is waited for comes within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `is_so`, or fails with what `tell` says.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool, tell: impl FnOnce() -> String) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {} s: {}", PATIENCE.as_secs(), tell());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A broker.
pub struct Kafka {
    pub address: String,
    own: Option<Own>,
}

/// The name and password that the listener with TLS asks for.
pub const SCRAM: (&str, &str) = ("ameles", "an-ordinary-secret");

struct Own {
    folder: TempDir,
    jars: PathBuf,
    heap_mb: u32,
    child: Option<Child>,
}

impl Kafka {
    /// One for this test alone. `None` where `make test` has not installed Kafka: the test says so and passes.
    pub fn start() -> Option<Self> {
        Self::start_with(384)
    }

    pub fn start_with(heap_mb: u32) -> Option<Self> {
        if let Ok(address) = std::env::var("AMELES_TEST_KAFKA") {
            return Some(Self { address, own: None });
        }
        Self::start_own(heap_mb, None)
    }

    /// One of this test's own with a second listener, that speaks TLS and asks for a password by SCRAM;
    /// its address, and the file of the certificate to trust.
    pub fn start_with_tls() -> Option<(Self, String, PathBuf)> {
        let port = free_port();
        let kafka = Self::start_own(384, Some(port))?;
        let certificate = kafka.own.as_ref()?.folder.path().join("broker.pem");
        Some((kafka, format!("127.0.0.1:{port}"), certificate))
    }

    fn start_own(heap_mb: u32, tls_port: Option<u16>) -> Option<Self> {
        let Some(jars) = std::env::var_os("AMELES_TEST_KAFKA_JARS").map(PathBuf::from) else {
            assert!(std::env::var_os("AMELES_TEST_PYTHON").is_none(), "`make test` installs Kafka, and AMELES_TEST_KAFKA_JARS is not set");
            eprintln!("no Kafka: `make test` installs one");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let (port, controller) = (free_port(), free_port());
        let tls_listener = tls_port.map(|port| format!(",SASL_SSL://127.0.0.1:{port}")).unwrap_or_default();
        let data = folder.path().join("data");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{tls_listener}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{tls_listener}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1\n\
             share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             share.coordinator.state.topic.num.partitions=1\ngroup.min.session.timeout.ms=500\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\nlog.segment.delete.delay.ms=1000\nlog.cleaner.dedupe.buffer.size=4194304\n",
            data.display()
        );
        let tls = tls_port.map(|_| tls_properties(folder.path())).unwrap_or_default();
        std::fs::write(folder.path().join("server.properties"), properties + &tls).unwrap();
        let mut own = Own { folder, jars, heap_mb, child: None };
        let format = own
            .java("kafka.tools.StorageTool")
            .args(["format", "--standalone", "-t", "ameles-tests-cluster00", "-c"])
            .arg(own.folder.path().join("server.properties"))
            .args(["--add-scram", &format!("SCRAM-SHA-512=[name={},password={}]", SCRAM.0, SCRAM.1)])
            .output()
            .unwrap();
        assert!(format.status.success(), "{}", String::from_utf8_lossy(&format.stderr));
        own.run();
        let kafka = Self { address: format!("127.0.0.1:{port}"), own: Some(own) };
        kafka.wait_for_it();
        Some(kafka)
    }

    fn wait_for_it(&self) {
        let ready = || self.admin().inner().fetch_metadata(None, Duration::from_secs(5)).is_ok_and(|found| !found.brokers().is_empty());
        wait_until("the broker", ready, || {
            self.own
                .as_ref()
                .map(|own| std::fs::read_to_string(own.folder.path().join("broker.log")).unwrap_or_default())
                .unwrap_or_default()
        });
    }

    /// Whether it is this test's to stop.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// `kill -9`, and after a while the same broker again.
    pub fn crash_and_restart(&mut self, down: Duration) {
        let own = self.own.as_mut().expect("an own broker");
        own.kill();
        std::thread::sleep(down);
        own.run();
        self.wait_for_it();
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.address).set("log_level", "2").create().unwrap()
    }

    /// Makes a topic; waits until it is gone if one of the name is being deleted.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let admin = self.admin();
        let create = || {
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            let made = futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
            made.iter().all(Result::is_ok)
        };
        wait_until("a topic", create, || name.to_owned());
    }

    pub fn delete_topic(&self, name: &str) {
        let admin = self.admin();
        let deleted = futures::executor::block_on(admin.delete_topics(&[name], &AdminOptions::new())).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    pub fn producer(&self) -> Messages {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("log_level", "2")
            .set("linger.ms", "20")
            .set("batch.size", "262144")
            .set("compression.type", "lz4")
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "500000")
            .set("message.timeout.ms", "110000")
            .create()
            .unwrap();
        Messages { producer }
    }
}

impl Own {
    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args([&format!("-Xmx{}m", self.heap_mb), "-Xms64m", "-XX:+UseSerialGC", "-Djava.awt.headless=true", "-cp"]);
        command.arg(format!("{}/*", self.jars.display())).arg(class);
        command
    }

    /// The broker ends with this process, however that ends: a shell holds it and waits on a pipe.
    fn run(&mut self) {
        let java = self.java("kafka.Kafka");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("broker.log")).unwrap();
        let child = Command::new("sh")
            .args(["-c", "\"$@\" <&- & broker=$!; read -r _; kill -9 $broker; wait $broker", "sh"])
            .arg(java.get_program())
            .args(java.get_args())
            .arg(self.folder.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _status = child.wait();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Makes the broker a key and a certificate; what its properties say of them.
fn tls_properties(folder: &Path) -> String {
    let keytool = |args: &[&str]| {
        let output = Command::new("keytool").current_dir(folder).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let store = ["-alias", "broker", "-keystore", "broker.p12", "-storetype", "PKCS12", "-storepass", "changeit"];
    let named = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", "san=ip:127.0.0.1", "-validity", "2"];
    keytool(&[&named[..], &store].concat());
    keytool(&[&["-exportcert", "-rfc", "-file", "broker.pem"], &store[..]].concat());
    format!(
        "ssl.keystore.location={}\nssl.keystore.type=PKCS12\nssl.keystore.password=changeit\nssl.key.password=changeit\n\
         sasl.enabled.mechanisms=SCRAM-SHA-512\nlistener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
        folder.join("broker.p12").display()
    )
}

/// Writes messages.
pub struct Messages {
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
}

impl Messages {
    /// Puts a message into a partition; waits where the producer's queue is full.
    pub fn send(&self, topic: &str, partition: i32, payload: Option<&[u8]>) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
            record.payload = payload;
            let Err((error, _)) = self.producer.send(record) else { return };
            assert!(Instant::now() < end, "the producer takes no more: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the broker has all.
    pub fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }
}

/// An `ameles serve` that reads from Kafka, killed when dropped.
pub struct Reader {
    child: Child,
    base: String,
    pub log: PathBuf,
}

/// How one is started.
pub struct Settings<'a> {
    pub brokers: &'a str,
    pub topic: &'a str,
    pub more: &'a [(&'a str, &'a str)],
}

impl Reader {
    /// Starts one; does not wait until it is ready.
    pub fn start(home: &Home, settings: &Settings<'_>) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = home.folder.path().join(format!("reader-{port}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let child = home
            .command(&["serve", "--listen", &format!("127.0.0.1:{port}")])
            .env("AMELES__KAFKA__BROKERS", settings.brokers)
            .env("AMELES__KAFKA__TOPICS", settings.topic)
            .env("AMELES__KAFKA__BATCH_MS", "200")
            // A killed member's partitions are another's soon.
            .env("AMELES__KAFKA__CLIENT", "{ \"session.timeout.ms\" = 1500, \"heartbeat.interval.ms\" = 300 }")
            .envs(settings.more.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, base: format!("http://127.0.0.1:{port}"), log }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it answers: before, it ends by the signal that asks it to stop.
    pub fn wait_until_up(&self) {
        wait_until("a server", || !self.metrics().is_empty(), || self.told());
    }

    /// Asks it to stop and expects it to end well.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let (mut status, log) = (None, self.log.clone());
        wait_until(
            "the end of a server",
            || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            },
            || std::fs::read_to_string(&log).unwrap_or_default(),
        );
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.told());
    }

    /// What it has logged.
    pub fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `/metrics`, as name with labels and value; empty while it does not answer.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let Ok(mut reply) = ureq::get(format!("{}/metrics", self.base)).call() else { return Vec::new() };
        let text = reply.body_mut().read_to_string().unwrap_or_default();
        let line = |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
    }

    /// The sum of a metric over its labels, and how many there are.
    pub fn metric(&self, name: &str) -> (f64, usize) {
        let of_it = |found: &str| found == name || found.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        let values: Vec<f64> = self.metrics().into_iter().filter(|(found, _)| of_it(found)).map(|(_, value)| value).collect();
        (values.iter().sum(), values.len())
    }

    /// Waits until a metric has a value.
    pub fn wait_for(&self, name: &str, value: f64) {
        wait_until(
            name,
            || self.metric(name) == (value, 1) || (self.metric(name).0 - value).abs() < 0.5,
            || format!("{:?}\n{}", self.metric(name), self.told()),
        );
    }

    /// Waits until this one has all partitions and nothing is left in them.
    pub fn wait_until_read(&self, partitions: usize) {
        let caught_up = || self.metric("ameles_kafka_lag") == (0.0, partitions);
        wait_until("reading the topic to its end", caught_up, || format!("{:?}\n{}", self.metric("ameles_kafka_lag"), self.told()));
    }

    /// received = accepted + Σ rejected, as /metrics tells it.
    pub fn assert_nothing_uncounted(&self) {
        let of = |name| self.metric(name).0;
        assert_eq!(of("ameles_kafka_messages_total"), of("ameles_kafka_events_accepted_total") + of("ameles_kafka_events_rejected_total"));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// The files of a table that are live, read by another maker's Delta reader.
pub fn warehouse(home: &Home) -> PathBuf {
    Path::new(&home.path()).join("warehouse")
}

/// Writes a line to standard error as a test goes on.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
