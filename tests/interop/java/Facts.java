/** A payload of a Java team's own: what it wants to know of a replica. */
public final class Facts {
    public String version;
    public String zone;
    public double weight;
    public String status;
}
