-- Each entry tells under which release it was written, so that a deploy can be seen in the data.
ALTER TABLE guest_book ADD COLUMN release TEXT NOT NULL DEFAULT '';
