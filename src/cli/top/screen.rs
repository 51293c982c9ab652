//! The screen of `top`: read each second, drawn, until a key ends it.

use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, TableState};
use tokio::time::Instant;

use super::{HEADER, cells, report};
use crate::api::conditions::Phase;
use crate::api::top::{TopNode, TopReport};
use crate::api_client::Client;
use crate::error_chain::error_chain;
use crate::model::time::UnixMs;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What is on the screen.
struct View {
    report: TopReport,
    /// When it was read.
    read: UnixMs,
    /// Why it could not be read since.
    trouble: Option<String>,
    colours: bool,
    /// The line that is looked at, so that longer tables can be read to their end.
    line: TableState,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    End,
    Up,
    Down,
    Other,
}

/// Draws until a key or an error of the terminal ends it; the terminal is as before then.
pub(super) async fn run(
    client: &Client,
    name: Option<&str>,
    first: TopReport,
) -> std::io::Result<()> {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let line = TableState::default();
    let mut view = View { report: first, read: UnixMs::now(), trouble: None, colours, line };
    let mut terminal = ratatui::try_init()?;
    let ended = async {
        loop {
            let next = Instant::now() + EVERY;
            loop {
                terminal.draw(|frame| draw(frame, &mut view))?;
                match key_before(next).await? {
                    Some(Key::End) => return Ok(()),
                    Some(Key::Up) => view.line.scroll_up_by(1),
                    Some(Key::Down) => view.line.scroll_down_by(1),
                    Some(Key::Other) => {}
                    None => break,
                }
            }
            match report(client, name).await {
                Ok(report) => {
                    (view.report, view.read, view.trouble) = (report, UnixMs::now(), None);
                }
                Err(error) => view.trouble = Some(error_chain(&error)),
            }
        }
    };
    let ended: std::io::Result<()> = ended.await;
    ratatui::try_restore()?;
    ended
}

/// The next key before that moment.
async fn key_before(until: Instant) -> std::io::Result<Option<Key>> {
    let left = until.saturating_duration_since(Instant::now());
    let read = move || {
        if !event::poll(left)? {
            return Ok(None);
        }
        event::read().map(|event| Some(meaning(&event)))
    };
    // The terminal knows no other way of waiting.
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

fn meaning(event: &Event) -> Key {
    let Event::Key(key) = event else { return Key::Other };
    if key.kind == KeyEventKind::Release {
        return Key::Other;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c' | 'd') if control => Key::End,
        KeyCode::Char('q') | KeyCode::Esc => Key::End,
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        _ => Key::Other,
    }
}

fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Line::from(headline(&view.report, view.read)).style(bold()), head);
    let rows = view.report.items.iter().map(|node| {
        let cells =
            cells(node).map(|cell| Cell::from(if cell.is_empty() { "-".into() } else { cell }));
        Row::new(cells).style(style(node, view.colours))
    });
    let table = Table::new(rows, widths(&view.report))
        .header(Row::new(HEADER).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(2);
    frame.render_stateful_widget(table, body, &mut view.line);
    let line = match &view.trouble {
        Some(trouble) => format!("not read since: {trouble}"),
        None => "q ends, up and down move; read each second".to_owned(),
    };
    frame.render_widget(Line::from(line), foot);
}

fn headline(report: &TopReport, read: UnixMs) -> String {
    let mut clusters: Vec<_> = report.items.iter().map(|node| &node.cluster).collect();
    clusters.dedup();
    let ops: u64 = report.items.iter().filter_map(|n| n.load.as_ref()?.ops_per_second).sum();
    let (nodes, clusters) = (report.items.len(), clusters.len());
    format!("akash-redis top  {read}  clusters: {clusters}  nodes: {nodes}  ops/s: {ops}")
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// The role is said by its word; a colour only helps to find it.
fn style(node: &TopNode, colours: bool) -> Style {
    let colour = match node.role {
        Phase::Master => Color::Green,
        Phase::Replica => Color::Reset,
        Phase::Unreachable | Phase::Lost | Phase::Quarantined => Color::Red,
        _ => Color::Yellow,
    };
    if colours { Style::new().fg(colour) } else { Style::new() }
}

/// As wide as what stands in each column.
fn widths(report: &TopReport) -> Vec<Constraint> {
    let mut widths = HEADER.map(str::len);
    for node in &report.items {
        for (width, cell) in widths.iter_mut().zip(cells(node)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths.map(|width| Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))).to_vec()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn the_screen_has_every_node_its_trouble_and_how_it_ends() {
        let mut view = View {
            report: super::super::tests::three(),
            read: UnixMs(1_800_000_000_000),
            trouble: None,
            colours: false,
            line: TableState::default(),
        };
        let mut terminal = Terminal::new(TestBackend::new(104, 7)).unwrap();
        terminal.draw(|frame| draw(frame, &mut view)).unwrap();
        let shown = terminal.backend().to_string();
        for part in ["nodes: 3  ops/s: 821", "OPS/S", "cache-0-x7k2", "1.6MiB 3s", "q ends"] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
        view.trouble = Some("no operator answers".into());
        terminal.draw(|frame| draw(frame, &mut view)).unwrap();
        let shown = terminal.backend().to_string();
        assert!(shown.contains("not read since: no operator answers"), "{shown}");
    }

    #[test]
    fn keys_mean_what_they_mean_elsewhere() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Key::End);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::End);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Key::Other);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Key::Down);
        assert_eq!(meaning(&Event::Resize(80, 24)), Key::Other);
    }
}
