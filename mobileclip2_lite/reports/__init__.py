"""What people read of a folder or a run: tables, figures, pages."""
