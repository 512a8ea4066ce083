CREATE TABLE guest_book (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    message TEXT NOT NULL,
    written_at TEXT NOT NULL
);
