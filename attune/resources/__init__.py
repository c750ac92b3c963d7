"""What the server answers, as far as the client reads it. Fields that a newer server adds are ignored."""
