import java.sql.DriverManager;
import java.sql.SQLException;

/** `java Ask <JDBC URL> <query>`: what Postgres's own driver gets as the first value. */
class Ask {
    public static void main(String[] arguments) {
        try (var connection = DriverManager.getConnection(arguments[0]);
                var rows = connection.createStatement().executeQuery(arguments[1])) {
            rows.next();
            System.out.println(rows.getString(1));
        } catch (SQLException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }
}
