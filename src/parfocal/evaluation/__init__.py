"""From predictions to results that can be defended."""
