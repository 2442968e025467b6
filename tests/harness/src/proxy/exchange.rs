//! One client's connection: its requests, one after the other, and what is done to each.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::{
    Fault,
    message::{read_answer, read_head, read_request_body, says},
    state::State,
};

const EMPTY_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What becomes of the client's connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Kept,
    Closed,
}

/// Serves a client until either side closes the connection, or a fault does.
pub(super) fn serve(state: &State, client: TcpStream) {
    // What it failed with is what the client sees: a closed connection.
    let _ = serve_all(state, &client);
    // Not by dropping it only: what has not been read would have the system reset the connection, and take away what
    // the client has not read of an answer yet.
    let _ = client.shutdown(Shutdown::Both);
}

fn serve_all(state: &State, client: &TcpStream) -> io::Result<()> {
    let _open = state.open(client)?;
    client.set_nodelay(true)?;
    let mut exchange = Exchange { state, reader: BufReader::new(client), client };
    while let Some(head) = read_head(&mut exchange.reader)? {
        let fault = state.take_in(&head);
        let after = match fault {
            None => exchange.pass(&head),
            Some(fault) => exchange.fail(&head, fault),
        };
        // What was held has told of itself.
        if fault.is_some_and(|fault| !matches!(fault, Fault::Hold | Fault::HoldInSilence)) {
            state.note_fault();
        }
        if after? == After::Closed {
            break;
        }
    }
    Ok(())
}

struct Exchange<'a> {
    state: &'a State,
    client: &'a TcpStream,
    reader: BufReader<&'a TcpStream>,
}

impl Exchange<'_> {
    fn pass(&mut self, head: &str) -> io::Result<After> {
        let body = self.read_body(head)?;
        let answer = self.ask(head, &body)?;
        self.answer(&answer)
    }

    fn fail(&mut self, head: &str, fault: Fault) -> io::Result<After> {
        if let Fault::CutRequest(bytes) = fault {
            return self.cut(head, bytes);
        }
        let body = self.read_body(head)?;
        match fault {
            Fault::CutRequest(_) => Ok(After::Closed),
            Fault::SwallowAnswer => {
                self.ask(head, &body)?;
                Ok(After::Closed)
            }
            Fault::TruncateAnswer(bytes) => {
                let answer = self.ask(head, &body)?;
                self.client.write_all(&answer[..bytes.min(answer.len())])?;
                Ok(After::Closed)
            }
            Fault::AnswerItself => self.answer(EMPTY_ANSWER),
            Fault::AnswerItselfAfter(bytes) => {
                self.send_part(head, &body[..bytes.min(body.len())])?;
                self.answer(EMPTY_ANSWER)
            }
            Fault::Twice => {
                self.ask(head, &body)?;
                let answer = self.ask(head, &body)?;
                self.answer(&answer)
            }
            Fault::DelayRequest(duration) => {
                self.state.delay(duration)?;
                let answer = self.ask(head, &body)?;
                self.answer(&answer)
            }
            Fault::DelayAnswer(duration) => {
                let answer = self.ask(head, &body)?;
                self.state.delay(duration)?;
                self.answer(&answer)
            }
            Fault::Hold | Fault::HoldInSilence => {
                if fault == Fault::Hold {
                    self.client.shutdown(Shutdown::Both)?;
                }
                let _held = self.state.hold()?;
                self.ask(head, &body)?;
                Ok(After::Closed)
            }
        }
    }

    /// Some clients send a body only when they are asked to.
    fn ask_for_body(&mut self, head: &str) -> io::Result<()> {
        if says(head, "expect", "100-continue") {
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(())
    }

    fn read_body(&mut self, head: &str) -> io::Result<Vec<u8>> {
        self.ask_for_body(head)?;
        read_request_body(&mut self.reader, head)
    }

    /// Reads no more of the body than these bytes, and passes them on.
    fn cut(&mut self, head: &str, bytes: usize) -> io::Result<After> {
        self.ask_for_body(head)?;
        let mut part = Vec::new();
        Read::by_ref(&mut self.reader).take(bytes as u64).read_to_end(&mut part)?;
        self.send_part(head, &part)?;
        Ok(After::Closed)
    }

    /// Sends the server a part of a request, then closes the connection to it.
    fn send_part(&self, head: &str, part: &[u8]) -> io::Result<()> {
        let mut server = self.connect()?;
        let _open = self.state.open(&server)?;
        server.write_all(head.as_bytes())?;
        server.write_all(part)?;
        server.shutdown(Shutdown::Both)
    }

    /// Sends the server a request and returns its answer.
    fn ask(&self, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = self.connect()?;
        let _open = self.state.open(&server)?;
        server.write_all(head.as_bytes())?;
        // A server may refuse before it has read all, and close: then there is an answer nevertheless.
        let sent = server.write_all(body);
        let answer = read_answer(&mut BufReader::new(&server), head).map_err(|error| sent.err().unwrap_or(error))?;
        self.state.note_answer();
        Ok(answer)
    }

    /// A connection for each request: none can have been closed by the server in the meantime.
    fn connect(&self) -> io::Result<TcpStream> {
        let server = TcpStream::connect(&self.state.server)?;
        server.set_nodelay(true)?;
        Ok(server)
    }

    fn answer(&mut self, answer: &[u8]) -> io::Result<After> {
        self.client.write_all(answer)?;
        let head = String::from_utf8_lossy(&answer[..answer.len().min(64 << 10)]).into_owned();
        let head = head.split("\r\n\r\n").next().unwrap_or_default();
        Ok(if says(head, "connection", "close") { After::Closed } else { After::Kept })
    }
}
