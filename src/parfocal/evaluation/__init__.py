"""From predictions to figures one can defend."""
