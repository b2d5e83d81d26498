//! Panics tell where, not what: a message of Rust's own, such as that of a text cut inside a character, quotes the value
//! that was at hand, and that may be an identifier.

use std::panic::PanicHookInfo;

/// From now on a panic is told by its place alone.
pub fn withhold_messages() {
    std::panic::set_hook(Box::new(|info| {
        use std::io::Write as _;
        // Where standard error is closed nobody listens; to panic again would abort.
        let _closed = writeln!(std::io::stderr(), "{}", told(info));
    }));
}

fn told(info: &PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    format!("the thread {name} panicked at {place}; its message is withheld because it may quote what was being read; please report this")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    const DEVICE: &str = "caf\u{e9}-of-canary-7";

    /// What the other test runs in a process of its own, hardened as the binary is.
    #[test]
    fn child() {
        if std::env::var_os("AMELES_TEST_PANIC").is_some() {
            crate::harden();
            let inside_a_character = DEVICE.find('é').unwrap() + 1;
            assert_eq!(&DEVICE[..inside_a_character], "never reached");
        }
    }

    #[test]
    fn a_panic_does_not_quote_what_was_being_read() {
        let child = |hardened: bool| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "panics::tests::child", "--nocapture"]);
            if hardened {
                command.env("AMELES_TEST_PANIC", "1");
            }
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout))
        };
        assert!(child(false).0);
        let (succeeded, text) = child(true);
        assert!(!succeeded && text.contains("panicked at pipeline/cli/panics.rs"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
