//! State files that somebody else wrote: other versions, other machines, file systems that lost their end.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::machine::Machine;

/// What becomes of a file, and how often the attester says so.
struct Tampering {
    what: &'static str,
    file: &'static str,
    tamper: fn(&str) -> Vec<u8>,
    /// Whether it is put aside.
    aside: bool,
    /// Whether the attester enrols again.
    enrolls: bool,
}

const TAMPERINGS: [Tampering; 11] = [
    Tampering { what: "empty", file: "identity.json", tamper: |_| Vec::new(), aside: true, enrolls: true },
    Tampering {
        what: "cut off",
        file: "identity.json",
        tamper: |text| text.as_bytes()[..text.len() / 2].to_vec(),
        aside: true,
        enrolls: true,
    },
    Tampering {
        what: "zeros, as after a power cut",
        file: "identity.json",
        tamper: |text| vec![0; text.len()],
        aside: true,
        enrolls: true,
    },
    Tampering {
        what: "another machine's",
        file: "identity.json",
        tamper: |text| with(text, "node", &"ab".repeat(32)),
        aside: true,
        enrolls: true,
    },
    Tampering {
        what: "a key that another TPM wrapped",
        file: "identity.json",
        tamper: |text| foreign(text, "attestation_key"),
        aside: true,
        enrolls: true,
    },
    Tampering { what: "empty", file: "credential.json", tamper: |_| Vec::new(), aside: true, enrolls: false },
    Tampering {
        what: "a later version's",
        file: "credential.json",
        tamper: |text| text.replace("\"version\": 1", "\"version\": 2").into_bytes(),
        aside: true,
        enrolls: false,
    },
    Tampering {
        what: "another machine's",
        file: "credential.json",
        tamper: |text| with(text, "node", &"ab".repeat(32)),
        aside: true,
        enrolls: false,
    },
    Tampering {
        what: "a key that another TPM wrapped",
        file: "credential.json",
        tamper: |text| foreign(text, "key"),
        aside: true,
        enrolls: false,
    },
    Tampering {
        what: "no certificate",
        file: "credential.json",
        tamper: |text| with(text, "certificate_chain", "none"),
        aside: true,
        enrolls: false,
    },
    Tampering { what: "empty", file: "status.json", tamper: |_| Vec::new(), aside: false, enrolls: false },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tampered_state_is_told_once_and_made_anew() {
    let machine = Machine::new().await;
    let daemon = machine.site.spawn();
    machine.converges(&daemon).await;
    daemon.stop().await;
    for tampering in TAMPERINGS {
        let Tampering { what, file, tamper, aside, enrolls } = tampering;
        let path = machine.site.state().join(file);
        let good = fs::read_to_string(&path).unwrap();
        let bad = tamper(&good);
        assert_ne!(bad, good.as_bytes(), "{file}: {what}");
        fs::write(&path, &bad).unwrap();

        let daemon = machine.site.spawn();
        machine.converges(&daemon).await;
        let log = daemon.stop().await;
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!(lines("a state file is put aside"), usize::from(aside), "{file}: {what}:\n{log}");
        assert_eq!(lines(" enrolled "), usize::from(enrolls), "{file}: {what}:\n{log}");
        // Neither a verifier that is slow to answer on a busy machine nor one that ends the stream of keys which were replaced
        // complains about the file.
        let others = lines("the verifier does not answer") + lines("the verifier ended the control stream");
        let complaints = lines("WARN") + lines("ERROR") - others;
        assert!(complaints <= 2, "{file}: {what}: {complaints} complaints:\n{log}");
        if aside {
            let kept: PathBuf = machine.site.state().join(format!("{file}.bad"));
            assert_eq!(fs::read(&kept).unwrap(), bad, "{file}: {what}");
            fs::remove_file(kept).unwrap();
        }
        machine.examine_in_order();
    }
}

/// The file with another string in a field.
fn with(text: &str, field: &str, value: &str) -> Vec<u8> {
    changed(text, |content| content[field] = value.into())
}

/// The file with another wrapped private part of a key: nobody but the TPM can tell.
fn foreign(text: &str, key: &str) -> Vec<u8> {
    changed(text, |content| {
        let private = content[key]["private"].as_str().unwrap();
        let (head, tail) = private.split_at(private.len() / 2);
        let other = if tail.starts_with('A') { "B" } else { "A" };
        content[key]["private"] = format!("{head}{other}{}", &tail[1..]).into();
    })
}

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut file: Value = serde_json::from_str(text).unwrap();
    change(&mut file["content"]);
    serde_json::to_vec(&file).unwrap()
}
