//! Sits between a client and a TPM, as a tap on the bus does: sees commands, answers in the TPM's place, alters answers.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rootbound_attester::tpm::TctiConfig;

use super::ports::PortPair;
use super::{Swtpm, owned_tcti, wire};

/// What becomes of a command.
pub enum Action {
    /// The TPM gets it, the client gets the TPM's answer.
    Forward,
    /// The TPM does not see it, the client gets this response code.
    Answer(u32),
    /// The TPM gets it, the client gets another answer.
    Alter(fn(Vec<u8>) -> Vec<u8>),
    /// The connection ends without an answer.
    HangUp,
}

/// A relay to a [`Swtpm`] with a say in each command. It ends on drop.
pub struct Interposer {
    ports: PortPair,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Interposer {
    /// Puts `decide` in front of `tpm`: it is called with the code of each command (Part 2, table 12) and the whole
    /// command; while it blocks, so does the TPM, seen from the client.
    ///
    /// # Panics
    /// Where its ports cannot be listened on.
    pub fn new(tpm: &Swtpm, mut decide: impl FnMut(u32, &[u8]) -> Action + Send + 'static) -> Self {
        let (ports, data, control) = (0..100)
            .find_map(|_| {
                let ports = PortPair::reserve();
                let data = TcpListener::bind(("127.0.0.1", ports.data())).ok()?;
                let control = TcpListener::bind(("127.0.0.1", ports.control())).ok()?;
                Some((ports, data, control))
            })
            .expect("ports to listen on");
        let stop = Arc::new(AtomicBool::new(false));
        let (tpm_data, tpm_control) = (tpm.ports.data(), tpm.ports.control());
        let data = serve(data, Arc::clone(&stop), move |stream| {
            // The end of a connection is an error of the read, and the end of this client.
            drop(relay_commands(stream, tpm_data, &mut decide));
        });
        let control = serve(control, Arc::clone(&stop), move |stream| {
            drop(relay_bytes(stream, tpm_control));
        });
        Self { ports, stop, threads: vec![data, control] }
    }

    /// What the attester's configuration says about the TPM behind this.
    #[must_use]
    pub fn tcti(&self) -> TctiConfig {
        owned_tcti(&self.ports)
    }
}

impl Drop for Interposer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for port in [self.ports.data(), self.ports.control()] {
            // Wakes the thread, which waits for a client.
            drop(wire::try_connect(port));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn serve(
    listener: TcpListener,
    stop: Arc<AtomicBool>,
    mut client: impl FnMut(TcpStream) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            client(stream);
        }
    })
}

fn relay_commands(
    mut stream: TcpStream,
    tpm: u16,
    decide: &mut impl FnMut(u32, &[u8]) -> Action,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let command = wire::read_message(&mut stream)?;
        let code = u32::from_be_bytes([command[6], command[7], command[8], command[9]]);
        let answer = match decide(code, &command) {
            Action::Forward => wire::try_transmit(tpm, &command)?.as_bytes().to_vec(),
            Action::Answer(code) => wire::response(code),
            Action::Alter(alter) => alter(wire::try_transmit(tpm, &command)?.as_bytes().to_vec()),
            Action::HangUp => return stream.shutdown(Shutdown::Both),
        };
        stream.write_all(&answer)?;
    }
}

fn relay_bytes(mut client: TcpStream, tpm: u16) -> io::Result<()> {
    let mut server = wire::try_connect(tpm)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        drop(io::copy(&mut from_server, &mut to_client));
        drop(to_client.shutdown(Shutdown::Write));
    });
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer)? {
            0 => break,
            count => server.write_all(&buffer[..count])?,
        }
    }
    server.shutdown(Shutdown::Write)?;
    drop(back.join());
    Ok(())
}
